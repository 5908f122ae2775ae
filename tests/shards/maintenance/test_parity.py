"""Agreement of two extractions: features at the same boxes, overlap of the selections."""

from pathlib import Path

import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.shards.formats.import_export import export_format, import_format
from semvlp.shards.maintenance.parity import agreement, box_iou, parity
from semvlp.shards.record import NO_ATTRIBUTE, Regions

GOLDEN = "butd_golden/train2014_obj36.tsv"


def regions(boxes: list[list[float]], features: list[list[float]]) -> Regions:
    count = len(boxes)
    placed = np.array(boxes, np.float32).reshape(-1, 4)
    return Regions(
        image_id="a",
        width=100,
        height=100,
        boxes=placed,
        proposals=placed + 20,
        features=np.array(features, np.float16).reshape(count, len(features[0]) if count else 2),
        object_ids=np.zeros(count, np.int16),
        object_conf=np.zeros(count, np.float16),
        attribute_ids=np.full(count, NO_ATTRIBUTE, np.int16),
        attribute_conf=np.zeros(count, np.float16),
        profile="p",
    )


def test_box_iou_by_hand() -> None:
    first = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], np.float32)
    second = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    np.testing.assert_allclose(box_iou(first, second), [[1, 1 / 3, 0], [0, 0, 0]], atol=1e-6)


def test_agreement_by_hand() -> None:
    golden = regions([[0, 0, 10, 10], [40, 40, 60, 60]], [[1, 0], [1, 1]])
    extracted = regions([[40, 40, 60, 50], [0, 0, 10, 10.5]], [[1, 1], [1, 1]])
    agreed = agreement(golden, extracted)
    np.testing.assert_allclose(agreed.overlaps, [10 / 10.5, 0.5], atol=1e-6)
    # Only the first has a same-box partner: cosine of (1, 0) and (1, 1).
    np.testing.assert_allclose(agreed.cosines, [np.sqrt(0.5)], atol=1e-6)
    assert agreement(golden, extracted, "proposals").overlaps.max() < 0.1


def test_images_without_regions_and_other_sizes() -> None:
    golden = regions([[0, 0, 10, 10]], [[1, 0]])
    empty = regions([], [])
    assert agreement(golden, empty).overlaps.tolist() == [0]
    assert agreement(empty, golden).overlaps.tolist() == []
    with pytest.raises(InputError, match="same size"):
        agreement(golden, regions([[0, 0, 10, 10]], [[1, 0, 0]]))


def test_a_golden_file_agrees_with_its_own_import(real_data: Path, tmp_path: Path) -> None:
    import_format(real_data / GOLDEN, tmp_path / "store", from_="lxmert-tsv", to="tar")
    figures = parity(real_data / GOLDEN, tmp_path / "store")
    assert (figures["images"], figures["regions"], figures["missing"]) == (10, 360, [])
    assert figures["selection_overlap"] == pytest.approx(1)
    assert figures["same_box_share"] == figures["same_box_cosine_above_0.99"] == 1
    assert figures["same_box_cosine"] == pytest.approx(1, abs=1e-5)
    assert [image["regions"] for image in figures["per_image"]] == [36] * 10


def test_shifted_boxes_and_spoilt_features_are_seen(real_data: Path, tmp_path: Path) -> None:
    import_format(real_data / GOLDEN, tmp_path / "store", from_="lxmert-tsv", to="tar")
    export_format(tmp_path / "store", tmp_path / "copy.tsv", to="butd-tsv")
    lines = (tmp_path / "copy.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    # Features of one image under the boxes of another; the last image is left out.
    rows[0][5], rows[1][5] = rows[1][5], rows[0][5]
    (tmp_path / "copy.tsv").write_text("\n".join("\t".join(row) for row in rows[:-1]) + "\n")
    figures = parity(tmp_path / "store", tmp_path / "copy.tsv")
    assert figures["images"] == 9
    assert len(figures["missing"]) == 1
    cosines = [image["same_box_cosine"] for image in figures["per_image"]]
    assert max(cosines[:2]) < 0.9
    assert min(cosines[2:]) == pytest.approx(1, abs=1e-5)


def test_what_is_no_extraction_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("a\tb\n")
    with pytest.raises(InputError, match="found 2 columns"):
        parity(tmp_path / "x.tsv", tmp_path / "x.tsv")
    with pytest.raises(InputError, match="was expected"):
        parity(tmp_path, tmp_path)
