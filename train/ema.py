"""A moving average of the weights, which is what is validated and saved in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from semvlp.train.distributed import cut_like, local


class WeightAverage:
    """Exponential moving average (Polyak and Juditsky 1992) of a model's parameters.

    It starts as the parameters are. Where these are cut among ranks, so is the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = dict(model.named_parameters())
        self._average = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._mix = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self) -> None:
        """average = decay * average + (1 - decay) * parameters."""
        self._mix(_local(self._average), _local(self._parameters), None)

    @contextmanager
    def in_place(self) -> Iterator[Mapping[str, Tensor]]:
        """Make the parameters the average inside; give what they are otherwise, by name."""
        self._swap()
        try:
            yield self._average
        finally:
            self._swap()

    @torch.no_grad()
    def load_parameters(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the parameters, not the average, to whole tensors by name."""
        for name, parameter in self._parameters.items():
            parameter.copy_(cut_like(tensors[name], parameter))

    @torch.no_grad()
    def _swap(self) -> None:
        pairs = zip(_local(self._parameters), _local(self._average), strict=True)
        for parameter, average in pairs:
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)


def _local(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    return [local(tensor) for tensor in tensors.values()]
