"""The operator behind varlen_attn without a causal mask, on the CPU and by its definition.

PyTorch has it for GPUs only. With this in its place everything around the kernel runs anywhere:
boundaries, the order of arguments, autograd, compilation.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode


class Calls(TorchDispatchMode):
    """The arguments of every call of `varlen_attn`'s operators, either direction, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if "varlen_attn" in func.name():
            names = [argument.name for argument in func._schema.arguments]
            self.seen.append(dict(zip(names, args, strict=False)) | (kwargs or {}))
        return func(*args, **(kwargs or {}))


def install() -> None:
    """Register both directions for the CPU."""
    varlen._varlen_attn.register_kernel("cpu")(_forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(_backward)


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool,
    scale: float | None,
    window_size: list[int],
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    _check_whole(is_causal, scale, window_size, max_q, max_k)
    output = torch.full_like(query, torch.nan)
    for queries, keys in _segments(query, key, cu_seq_q, cu_seq_k, max_q, max_k):
        weights = _weights(query[queries], key[keys])
        output[queries] = torch.einsum("hqs,shk->qhk", weights, value[keys].float()).to(query.dtype)
    lse = torch.zeros(query.shape[1], len(query))
    return output, lse, torch.zeros(2, dtype=torch.uint64)


def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool,
    rng_state: Tensor,
    scale: float | None,
    window_size: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    _check_whole(is_causal, scale, window_size, max_q, max_k)
    grads = [torch.full_like(tensor, torch.nan) for tensor in (query, key, value)]
    scale = query.shape[-1] ** -0.5
    for queries, keys in _segments(query, key, cu_seq_q, cu_seq_k, max_q, max_k):
        weights = _weights(query[queries], key[keys])
        given, own = grad[queries].float(), out[queries].float()
        grads[2][keys] = torch.einsum("hqs,qhk->shk", weights, given).to(value.dtype)
        towards = torch.einsum("qhk,shk->hqs", given, value[keys].float())
        scores = weights * (towards - (given * own).sum(-1).T[:, :, None]) * scale
        grads[0][queries] = torch.einsum("hqs,shk->qhk", scores, key[keys].float()).to(query.dtype)
        grads[1][keys] = torch.einsum("hqs,qhk->shk", scores, query[queries].float()).to(key.dtype)
    return grads[0], grads[1], grads[2]


def _check_whole(
    is_causal: bool, scale: float | None, window_size: list[int], max_q: int, max_k: int
) -> None:
    """Every query sees all keys of its segment: flash reads a window as wide as that as none."""
    assert not is_causal
    assert scale is None
    assert all(width == -1 or width >= max(max_q, max_k) for width in window_size)


def _weights(query: Tensor, key: Tensor) -> Tensor:
    scores = torch.einsum("qhk,shk->hqs", query.float(), key.float())
    return (scores * query.shape[-1] ** -0.5).softmax(-1)


def _segments(
    query: Tensor, key: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int
) -> Iterator[tuple[slice, slice]]:
    """What a kernel relies on, and the segments."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert len(cu_seq_q) == len(cu_seq_k)
    for bounds, rows, longest in ((cu_seq_q, query, max_q), (cu_seq_k, key, max_k)):
        lengths = bounds.diff()
        assert bounds[0] == 0
        assert bounds[-1] == len(rows)
        assert lengths.min() > 0
        assert lengths.max() == longest
    ends = zip(cu_seq_q.tolist(), cu_seq_k.tolist(), strict=True)
    begin = next(ends)
    for end in ends:
        yield slice(begin[0], end[0]), slice(begin[1], end[1])
        begin = end
