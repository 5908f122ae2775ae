"""Attention within segments against attention computed one segment at a time."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from semvlp.model import PackedBatch
from semvlp.model.layers.attention import segment_attention
from semvlp.model.layers.encoder import self_attention_layout
from semvlp.model.layers.segments import AttentionLayout, Segments, attention_layout

# Sums of the same numbers in another order, in double precision.
EXACT = {"rtol": 1e-10, "atol": 1e-12}
MakeBatch = Callable[..., PackedBatch]

HEADS, WIDTH = 2, 3


def tensors(rows: int) -> list[Tensor]:
    return [
        torch.randn(rows, HEADS, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(3)
    ]


def one_by_one(
    query: Tensor, key: Tensor, value: Tensor, spans: list[tuple[slice, slice]]
) -> Tensor:
    """The definition: softmax(q k / sqrt(K)) v for each (queries, keys)."""
    output = torch.zeros_like(query)
    for queries, keys in spans:
        if key[keys].numel():
            scores = torch.einsum("qhk,shk->hqs", query[queries], key[keys]) / math.sqrt(WIDTH)
            mixed = torch.einsum("hqs,shk->qhk", scores.softmax(-1), value[keys])
            output = torch.cat([output[: queries.start], mixed, output[queries.stop :]])
    return output


def check(layout: AttentionLayout, rows: int, spans: list[tuple[slice, slice]]) -> None:
    """Outputs and gradients of both ways are the same."""
    own = tensors(rows)
    reference = [tensor.detach().clone().requires_grad_() for tensor in own]
    output, expected = segment_attention(*own, layout), one_by_one(*reference, spans)
    torch.testing.assert_close(output, expected, **EXACT)
    weight = torch.randn_like(output)
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    for tensor, other in zip(own, reference, strict=True):
        torch.testing.assert_close(tensor.grad, other.grad, **EXACT)


def test_segments_of_one_group() -> None:
    segments = Segments(torch.tensor([0, 3, 4]), torch.tensor([3, 1, 5]))
    spans = [(slice(0, 3),) * 2, (slice(3, 4),) * 2, (slice(4, 9),) * 2]
    check(attention_layout([(segments, segments)]), 9, spans)


def test_two_groups_that_attend_to_each_other() -> None:
    # t t t r r | t r r r | t t r
    text = Segments(torch.tensor([0, 5, 9]), torch.tensor([3, 1, 2]))
    regions = Segments(torch.tensor([3, 6, 11]), torch.tensor([2, 3, 1]))
    t = [slice(0, 3), slice(5, 6), slice(9, 11)]
    r = [slice(3, 5), slice(6, 9), slice(11, 12)]
    spans = [*zip(t, r, strict=True), *zip(r, t, strict=True)]
    check(attention_layout([(text, regions), (regions, text)]), 12, spans)


def test_an_empty_key_set_gives_zeros() -> None:
    text = Segments(torch.tensor([0, 2]), torch.tensor([2, 3]))
    regions = Segments(torch.tensor([2, 5]), torch.tensor([0, 2]))
    layout = attention_layout([(text, regions), (regions, text)])
    spans = [(slice(2, 5), slice(5, 7)), (slice(5, 7), slice(2, 5))]
    check(layout, 7, spans)
    output = segment_attention(*tensors(7), layout)
    assert output[:2].abs().max() == 0
    assert output[2:].abs().min() > 0


def test_no_keys_at_all() -> None:
    text = Segments(torch.tensor([0, 2]), torch.tensor([2, 1]))
    nothing = Segments(torch.tensor([2, 3]), torch.tensor([0, 0]))
    inputs = tensors(3)
    output = segment_attention(*inputs, attention_layout([(text, nothing), (nothing, text)]))
    output.sum().backward()
    assert output.tolist() == torch.zeros(3, HEADS, WIDTH).tolist()
    assert all(tensor.grad is not None and not tensor.grad.any() for tensor in inputs)


def test_equal_lengths_need_no_mask(make_batch: MakeBatch) -> None:
    equal, uneven = make_batch([(3, 2), (3, 2)]), make_batch([(3, 2), (3, 1)])
    assert self_attention_layout(equal, "single").groups[0].attend_mask is None
    assert self_attention_layout(uneven, "single").groups[0].attend_mask is not None


def test_layout_of_a_batch(make_batch: MakeBatch) -> None:
    batch = make_batch([(2, 3), (1, 1)])  # t t r r r | t r
    pairs = [(slice(0, 5),) * 2, (slice(5, 7),) * 2]
    t, r = [slice(0, 2), slice(5, 6)], [slice(2, 5), slice(6, 7)]
    check(self_attention_layout(batch, "single"), 7, pairs)
    check(self_attention_layout(batch, "two"), 7, [(span, span) for span in t + r])


def test_two_streams_are_not_padded_to_each_other(make_batch: MakeBatch) -> None:
    text, regions = self_attention_layout(make_batch([(2, 9), (2, 9)]), "two").groups
    assert (text.query_rows.shape, regions.query_rows.shape) == ((2, 2), (2, 9))


def test_dropout_drops_attention_weights() -> None:
    segments = Segments(torch.tensor([0]), torch.tensor([4]))
    layout = attention_layout([(segments, segments)])
    inputs = tensors(4)
    whole = segment_attention(*inputs, layout)
    assert torch.equal(whole, segment_attention(*inputs, layout, dropout=0.0))
    assert not torch.allclose(whole, segment_attention(*inputs, layout, dropout=0.5))


def test_unknown_mode(make_batch: MakeBatch) -> None:
    with pytest.raises(ValueError, match="one of single, two, got 'both'"):
        self_attention_layout(make_batch([(1, 1)]), "both")


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        (None, {"flash", "efficient", "math"}),
        (SDPBackend.MATH, {"math"}),
        (SDPBackend.CUDNN_ATTENTION, {"math"}),
    ],
)
def test_the_kernel_with_a_wrong_gradient_is_never_taken(
    asked: SDPBackend | None, taken: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[set[str]] = []
    attention = functional.scaled_dot_product_attention

    def recorded(*given: Any, **options: Any) -> Tensor:
        allowed.append(enabled_kernels())
        return attention(*given, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", recorded)
    segments = Segments(torch.tensor([0, 3]), torch.tensor([3, 1]))
    before = enabled_kernels()
    with sdpa_kernel(asked) if asked else nullcontext():
        segment_attention(*tensors(4), attention_layout([(segments, segments)]))
    assert allowed == [taken]
    assert enabled_kernels() == before


def enabled_kernels() -> set[str]:
    """Those that PyTorch may take now."""
    settings = torch.backends.cuda
    enabled = {
        "flash": settings.flash_sdp_enabled(),
        "efficient": settings.mem_efficient_sdp_enabled(),
        "math": settings.math_sdp_enabled(),
        "cudnn": settings.cudnn_sdp_enabled(),
    }
    return {name for name, allowed in enabled.items() if allowed}
