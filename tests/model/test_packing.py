"""What lies where in a packed batch, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from semvlp.model import PackedBatch, pack
from semvlp.model.packing import PairRegions, from_padded, to_padded

MakeBatch = Callable[..., PackedBatch]

LENGTHS = [(3, 2), (1, 0), (2, 4)]


def regions(count: int, *, value: float = 0.0, size: int = 3) -> PairRegions:
    boxes = np.tile(np.array([[10, 5, 20, 40]], np.float32), (count, 1))
    return np.full((count, size), value, np.float16), boxes, 40, 50


def test_pack_lays_pairs_one_after_another() -> None:
    batch = pack([[7, 8], [9]], [regions(1, value=1.5), regions(2, value=-2)])
    assert batch.num_pairs == 2
    assert batch.input_ids.tolist() == [7, 8, 9]
    assert batch.text_lengths.tolist() == [2, 1]
    assert batch.region_lengths.tolist() == [1, 2]
    assert batch.region_features.tolist() == [[1.5] * 3, [-2.0] * 3, [-2.0] * 3]
    assert batch.region_boxes.dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "kept"),
    [("float16", torch.float16), ("float32", torch.float32), ("float64", torch.float32)],
)
def test_stored_features_stay_as_they_are(given: str, kept: torch.dtype) -> None:
    features, *rest = regions(2, value=1.5)
    batch = pack([[7]], [(features.astype(given), *rest)])  # type: ignore[arg-type]
    assert batch.region_features.dtype == kept
    assert batch.region_features.tolist() == [[1.5] * 3] * 2


def test_boxes_become_fractions_of_width_and_height() -> None:
    batch = pack([[7]], [regions(1)])
    torch.testing.assert_close(batch.region_boxes, torch.tensor([[0.25, 0.1, 0.5, 0.8]]))


def test_arrays_of_the_caller_are_never_shared() -> None:
    features, boxes, width, height = regions(1)
    features.setflags(write=False)
    batch = pack([[7]], [(features, boxes, width, height)])
    batch.region_features[:] = 9
    batch.region_boxes[:] = 9
    assert features.max() == 0
    assert boxes.max() == 40


def test_rows_of_the_packed_row(make_batch: MakeBatch) -> None:
    batch = make_batch(LENGTHS)  # t t t r r | t | t t r r r r
    assert batch.text_rows.tolist() == [0, 1, 2, 5, 6, 7]
    assert batch.region_rows.tolist() == [3, 4, 8, 9, 10, 11]
    assert batch.text_positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert batch.first_tokens.tolist() == [0, 3, 4]
    assert batch.row_sources.tolist() == [0, 1, 2, 6, 7, 3, 4, 5, 8, 9, 10, 11]


def test_replace_keeps_the_rest_and_checks_again(make_batch: MakeBatch) -> None:
    batch = make_batch(LENGTHS)
    mask = torch.tensor([True, False, False, False, True, False])
    masked = batch.replace(region_mask=mask)
    assert masked.region_mask is mask
    assert masked.input_ids is batch.input_ids
    with pytest.raises(ValueError, match=r"region_mask must be bool \[6\], got torch.int64 \(5,\)"):
        batch.replace(region_mask=torch.zeros(5, dtype=torch.int64))


def test_to_moves_contents_and_leaves_lengths(make_batch: MakeBatch) -> None:
    batch = make_batch(LENGTHS)
    to_device = batch.replace(region_mask=torch.zeros(6, dtype=torch.bool)).to("meta")
    assert to_device.device.type == "meta"
    assert to_device.region_mask is not None
    for name in ("region_features", "region_boxes", "region_mask", "text_rows", "row_sources"):
        assert getattr(to_device, name).device.type == "meta", name
    assert to_device.text_lengths.device.type == to_device.region_lengths.device.type == "cpu"


def test_padded_round_trip_is_exact() -> None:
    lengths = torch.tensor([2, 0, 3])
    values = torch.arange(10.0).view(5, 2)
    padded, mask = to_padded(values, lengths)
    assert padded.shape == (3, 3, 2)
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert padded[~mask].abs().max() == 0
    assert padded[2].tolist() == values[2:].tolist()
    assert torch.equal(from_padded(padded, lengths), values)


@pytest.mark.parametrize(
    ("texts", "pairs", "message"),
    [
        ([], [], "at least one, got 0 and 0"),
        ([[1]], [regions(1), regions(1)], "got 1 and 2"),
        ([[1], []], [regions(1), regions(1)], "pair 1: a text must hold at least its .CLS."),
        (
            [[1]],
            [(np.zeros((2, 3)), np.zeros((1, 4)), 5, 5)],
            r"pair 0: .*got \(2, 3\) and \(1, 4\)",
        ),
        ([[1]], [(np.zeros(3), np.zeros((1, 4)), 5, 5)], r"features must be \[R, F\]"),
        ([[1]], [(np.zeros((1, 3)), np.zeros((1, 4)), 0, 5)], "positive, got 0x5"),
        (
            [[1]],
            [(np.zeros((1, 3)), np.array([[0, 0, 9, 5]]), 5, 5)],
            "within the 5x5 image.*region 0",
        ),
        ([[1]], [(np.zeros((1, 3)), np.array([[0, 0, np.nan, 5]]), 5, 5)], "within the 5x5 image"),
    ],
)
def test_pack_refuses(texts: list[list[int]], pairs: list[PairRegions], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(texts, pairs)


def test_boxes_a_hair_outside_are_clipped() -> None:
    pair = (np.zeros((1, 3), np.float16), np.array([[-0.01, 0, 5.01, 5]], np.float32), 5, 5)
    assert pack([[1]], [pair]).region_boxes.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("input_ids", torch.zeros(5, dtype=torch.int64), r"input_ids must be \[6\]"),
        ("region_features", torch.zeros(5, 6), r"region_features must be \[6, F\]"),
        ("region_boxes", torch.zeros(6, 3), r"region_boxes must be \[6, 4\]"),
        ("region_lengths", torch.tensor([2, 4]), r"same N pairs, got \(3,\) and \(2,\)"),
        ("text_lengths", torch.tensor([6, 0, 0]), "pair 1: a text must hold"),
    ],
)
def test_fields_that_do_not_fit(
    make_batch: MakeBatch, field: str, value: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_batch(LENGTHS).replace(**{field: value})
