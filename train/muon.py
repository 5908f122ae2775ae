"""Muon for the matrices of the blocks and AdamW for everything else, as one optimiser.

Muon (Jordan et al. 2024, torch.optim.Muon) makes the update of a matrix orthogonal, so that all of
its directions learn alike. Updates are scaled to the size of AdamW's (Liu et al. 2025, Moonlight),
so both take the same learning rate.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class MuonAdamW(torch.optim.Optimizer):
    """One state and one list of groups, which the two optimisers share."""

    def __init__(
        self,
        matrices: Sequence[dict[str, Any]],
        others: Sequence[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """Parameter groups of two-dimensional tensors, and those of all other tensors."""
        self._muon = torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, fused=True)
        self._num_matrix_groups = len(matrices)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters, or none where `found_inf` is set; this waits for the device.

        Raises:
            ValueError: a closure is given.
        """
        if closure is not None:
            raise ValueError("closure must be None: the gradients are computed beforehand")
        if getattr(self, "found_inf", None):
            return
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        cut = self._num_matrix_groups
        self._muon.param_groups, self._adamw.param_groups = (
            self.param_groups[:cut],
            self.param_groups[cut:],
        )
        self._muon.state = self._adamw.state = self.state
