"""LXMERT, bottom-up-attention and VinVL files: real ones, and rows built by hand."""

import base64
import csv
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semvlp.errors import InputError
from semvlp.shards.formats.import_export import export_format, import_format
from semvlp.shards.formats.raw import to_regions
from semvlp.shards.formats.table import load_format
from semvlp.shards.open import open_store
from semvlp.shards.record import NO_ATTRIBUTE, Regions

GOLDEN = "butd_golden/train2014_obj36.tsv"
LXMERT_FIELDS = [
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
]


def b64(values: Any, kind: str) -> str:
    return base64.b64encode(np.array(values, kind).tobytes()).decode()


def read_one(path: Path, name: str, image_id: str) -> Regions:
    dataset = load_format(name).open(path)
    return to_regions(dataset.read(image_id), image_id, profile="p")


def lxmert_row(**columns: Any) -> str:
    row = {
        "img_id": "COCO_val2014_000000000042.jpg",
        "img_h": 10,
        "img_w": 20,
        "objects_id": b64([3, 1599], "<i8"),
        "objects_conf": b64([0.25, 0.75], "<f4"),
        "attrs_id": b64([7, 399], "<i8"),
        "attrs_conf": b64([0.5, 0.125], "<f4"),
        "num_boxes": 2,
        "boxes": b64([[1, 2, 19, 9], [0, 0, 5, 5]], "<f4"),
        "features": b64([[1, 2, 3], [4, 5, 6]], "<f4"),
        **columns,
    }
    return "\t".join(map(str, row.values()))


def test_an_lxmert_row_by_hand(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(lxmert_row() + "\r\n")
    regions = read_one(tmp_path / "x.tsv", "lxmert-tsv", "COCO_val2014_000000000042")
    # Height stands before width, and the more confident second region comes first.
    assert (regions.width, regions.height) == (20, 10)
    assert regions.object_ids.tolist() == [1599, 3]
    assert regions.object_conf.tolist() == [0.75, 0.25]
    assert regions.attribute_ids.tolist() == [399, 7]
    assert regions.attribute_conf.tolist() == [0.125, 0.5]
    assert regions.boxes.tolist() == [[0, 0, 5, 5], [1, 2, 19, 9]]
    assert regions.features.tolist() == [[4, 5, 6], [1, 2, 3]]


def test_columns_behind_the_ten_of_lxmert_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(lxmert_row(cls_prob="x", attrs="y", classes="z") + "\n")
    assert len(read_one(tmp_path / "x.tsv", "lxmert-tsv", "COCO_val2014_000000000042")) == 2


def test_zero_padding_is_removed(tmp_path: Path) -> None:
    padded = {
        "num_boxes": 3,
        "boxes": b64([[1, 2, 19, 9], [0, 0, 5, 5], [0] * 4], "<f4"),
        "features": b64([[1, 2, 3], [4, 5, 6], [0] * 3], "<f4"),
        **{name: b64([1, 2, 0], "<i8") for name in ("objects_id", "attrs_id")},
        **{name: b64([0.5, 0.25, 0], "<f4") for name in ("objects_conf", "attrs_conf")},
    }
    (tmp_path / "x.tsv").write_text(lxmert_row(**padded) + "\n")
    regions = read_one(tmp_path / "x.tsv", "lxmert-tsv", "COCO_val2014_000000000042")
    assert regions.features.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert regions.object_ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"objects_id": b64([1], "<i8")}, "1 entries for 2 regions"),
        ({"features": b64([[1, np.nan, 1], [1, 1, 1]], "<f4")}, "features holds a NaN"),
        ({"features": b64([[1, 1e6, 1], [1, 1, 1]], "<f4")}, "features holds a NaN or an inf"),
        ({"img_h": 20, "img_w": 10}, "exchanged"),
        ({"objects_id": b64([1, 70000], "<i8")}, r"labels must be 0\.\.32767, got 1\.\.70000"),
        ({"attrs_id": b64([1, -2], "<i8")}, r"labels must be -1\.\."),
        ({"num_boxes": -1}, "not a multiple of -1"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, columns: dict[str, Any], reason: str) -> None:
    (tmp_path / "x.tsv").write_text(lxmert_row(**columns) + "\n")
    with pytest.raises(InputError, match=reason):
        read_one(tmp_path / "x.tsv", "lxmert-tsv", "COCO_val2014_000000000042")


@pytest.mark.parametrize(
    ("name", "expected"), [("lxmert-tsv", "10 columns"), ("butd-tsv", "6 columns")]
)
def test_another_kind_of_file_is_an_error(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "x.tsv").write_text("a\tb\n")
    with pytest.raises(InputError, match=rf"x\.tsv: .*{expected}"):
        load_format(name).open(tmp_path / "x.tsv")
    with pytest.raises(InputError, match="expected"):
        load_format(name).open(tmp_path / "missing.tsv")


def test_a_file_of_the_other_kind_is_told_by_its_columns(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(lxmert_row() + "\n")
    with pytest.raises(InputError, match="give --from lxmert-tsv"):
        load_format("butd-tsv").open(tmp_path / "x.tsv")
    (tmp_path / "x.tsv").write_text("1\t2\t3\t4\t5\t6\n")
    with pytest.raises(InputError, match="give --from butd-tsv"):
        load_format("lxmert-tsv").open(tmp_path / "x.tsv")


def test_the_golden_file_is_read_as_lxmert_reads_it(real_data: Path, tmp_path: Path) -> None:
    manifest = import_format(real_data / GOLDEN, tmp_path / "out", from_="lxmert-tsv", to="tar")
    assert (manifest.counts["samples"], manifest.feature_size) == (10, 2048)
    csv.field_size_limit(sys.maxsize)
    with (real_data / GOLDEN).open() as file, open_store(tmp_path / "out") as store:
        for row in csv.DictReader(file, LXMERT_FIELDS, delimiter="\t"):
            regions = store.sample(store.index_of(row["img_id"])).regions
            _check_golden(row, regions)
            with Image.open(real_data / "butd_golden" / "images" / f"{row['img_id']}.jpg") as photo:
                assert photo.size == (regions.width, regions.height)


def _check_golden(row: dict[str, str], regions: Regions) -> None:
    """Against the decoding of airsplay/lxmert src/utils.py `load_obj_tsv`."""
    conf = np.frombuffer(base64.b64decode(row["objects_conf"]), np.float32)
    order = np.argsort(-conf, kind="stable")
    features = np.frombuffer(base64.b64decode(row["features"]), np.float32).reshape(36, -1)
    boxes = np.frombuffer(base64.b64decode(row["boxes"]), np.float32).reshape(36, 4)
    ids = np.frombuffer(base64.b64decode(row["objects_id"]), np.int64)
    attributes = np.frombuffer(base64.b64decode(row["attrs_id"]), np.int64)
    np.testing.assert_array_equal(regions.features, features[order].astype(np.float16))
    np.testing.assert_array_equal(regions.boxes, boxes[order])
    np.testing.assert_array_equal(regions.object_ids, ids[order])
    np.testing.assert_array_equal(regions.attribute_ids, attributes[order])
    # Ranges measured on these files: ReLU outputs, a quarter to 39 % zeros, a maximum of 24 to 36.
    assert regions.features.min() == 0
    assert 0.2 < (regions.features == 0).mean() < 0.4
    assert 24 < regions.features.max() < 36
    assert regions.object_ids.max() < 1600
    assert regions.attribute_ids.max() < 400
    # The Caffe detector clips to the last pixel of the resized image.
    limit = np.array([regions.width, regions.height] * 2)
    assert (regions.boxes < limit).all()


def test_an_exported_lxmert_row_has_the_columns_of_the_original(
    real_data: Path, tmp_path: Path
) -> None:
    import_format(real_data / GOLDEN, tmp_path / "store", from_="lxmert-tsv", to="tar")
    export_format(tmp_path / "store", tmp_path / "out.tsv", to="lxmert-tsv")
    theirs = [line.split("\t") for line in (real_data / GOLDEN).read_text().splitlines()]
    ours = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    for before, after in zip(theirs, ours, strict=True):
        assert before[:3] == after[:3]
        assert [len(column) for column in before] == [len(column) for column in after]


def test_a_bottom_up_attention_row_by_hand(tmp_path: Path) -> None:
    row = ["42", "20", "10", "2", b64([[1, 2, 19, 9], [0, 0, 5, 5]], "<f4"), b64([1, 2], "<f4")]
    (tmp_path / "x.tsv").write_text("\t".join(row) + "\n")
    regions = read_one(tmp_path / "x.tsv", "butd-tsv", "42")
    # Width before height; without confidences the order stays.
    assert (regions.width, regions.height) == (20, 10)
    assert regions.features.tolist() == [[1], [2]]
    assert regions.attribute_ids.tolist() == [NO_ATTRIBUTE] * 2
    assert regions.object_conf.tolist() == [0, 0]


VINVL_BOX = [0.25, 0.5, 0.75, 1.0, 0.5, 0.5]
FLICKR = ("000000522418", "000000184613", "000000391895")


def vinvl_files(folder: Path, kind: str = "<f4", layout: str = "columns") -> Path:
    """Two regions an image of features 2048 wide, for the three photographs of the example."""
    folder.mkdir(exist_ok=True)
    values = np.ones((2, 2054))
    values[1] = 2
    values[:, 2048:] = VINVL_BOX
    text = b64(values, kind)
    json_text = json.dumps({"num_boxes": 2, "features": text})
    rows = [[name, "2", text] if layout == "columns" else [name, json_text] for name in FLICKR]
    path = folder / ("features.tsv" if layout == "columns" else "train.feature.tsv")
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["<f4", "<f2"])
@pytest.mark.parametrize("layout", ["columns", "json"])
def test_vinvl_features_with_the_real_sizes_and_labels(
    real_data: Path, tmp_path: Path, kind: str, layout: str
) -> None:
    folder = vinvl_files(tmp_path / "set", kind, layout).parent
    for name in ("train.hw.tsv", "train.label.tsv"):
        (folder / name).write_bytes((real_data / "vinvl_mini" / name).read_bytes())
    manifest = import_format(folder, tmp_path / "out", from_="vinvl-tsv", to="tar")
    assert manifest.object_labels == ("Cat", "Dog")
    assert manifest.feature_size == 2048
    with open_store(tmp_path / "out") as store:
        assert tuple(store.image_ids) == FLICKR
        for image_id in FLICKR:
            regions = store.sample(store.index_of(image_id)).regions
            photo = real_data / "vinvl_mini" / "images" / f"{image_id}.jpg"
            with Image.open(photo) as image:
                width, height = image.size
            assert (regions.width, regions.height) == (width, height)
            expected = [width / 4, height / 2, 3 * width / 4, height]
            np.testing.assert_allclose(regions.boxes, [expected] * 2)
            assert [manifest.object_labels[i] for i in regions.object_ids] == ["Dog", "Cat"]
            assert regions.features[:, 0].tolist() == [1, 2]


def test_vinvl_features_alone_are_placed_on_a_unit(tmp_path: Path) -> None:
    path = vinvl_files(tmp_path / "set")
    manifest = import_format(path, tmp_path / "out", from_="vinvl-tsv", to="tar")
    assert "1000 x 1000" in manifest.extractor["boxes"]
    with open_store(tmp_path / "out") as store:
        assert store.sample(0).regions.boxes.tolist() == [[250, 500, 750, 1000]] * 2


def test_more_vinvl_labels_than_features_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = vinvl_files(tmp_path / "set")
    objects = [{"class": "dog", "rect": [0, 0, 1, 1], "conf": 0.9}]
    entry = json.dumps({"image_h": 10, "image_w": 20, "objects": objects})
    (path.parent / "predictions.tsv").write_text("".join(f"{i}\t{entry}\n" for i in FLICKR))
    with caplog.at_level(logging.WARNING):
        import_format(path, tmp_path / "out", from_="vinvl-tsv", to="tar")
    assert "1 detections for 2 features" in caplog.text
    with open_store(tmp_path / "out") as store:
        assert store.sample(0).regions.width == 20
        assert not store.sample(0).regions.object_conf.any()


def test_scene_graph_predictions_carry_their_features(tmp_path: Path) -> None:
    objects = [
        {
            "class": name,
            "rect": [1, 2, 3, 4 + n],
            "conf": 0.5 + n / 4,
            "feature": b64([n] * 5, "<f4"),
        }
        for n, name in enumerate(("dog", "ant"))
    ]
    path = tmp_path / "predictions.tsv"
    path.write_text(f"7\t{json.dumps({'objects': objects, 'relations': []})}\n")
    with pytest.raises(InputError, match=r"image sizes are needed in \*\.hw\.tsv"):
        load_format("vinvl-tsv").open(path)
    (tmp_path / "test.hw.tsv").write_text('7\t[{"height": 30, "width": 40}]\n')
    dataset = load_format("vinvl-tsv").open(tmp_path)
    regions = to_regions(dataset.read("7"), "7", profile="p")
    assert dataset.object_labels == ("ant", "dog")
    assert regions.object_ids.tolist() == [0, 1]
    assert regions.object_conf.tolist() == [0.75, 0.5]
    assert regions.boxes.tolist() == [[1, 2, 3, 5], [1, 2, 3, 4]]
    assert regions.features[0].tolist() == [1] * 5


def test_the_line_index_of_an_export_points_at_its_rows(real_data: Path, tmp_path: Path) -> None:
    import_format(real_data / GOLDEN, tmp_path / "store", from_="lxmert-tsv", to="tar")
    export_format(tmp_path / "store", tmp_path / "out", to="vinvl-tsv")
    lines = json.loads((tmp_path / "out" / "imageid2idx.json").read_text())
    offsets = [int(line) for line in (tmp_path / "out" / "features.lineidx").read_text().split()]
    with (tmp_path / "out" / "features.tsv").open("rb") as file:
        for image_id, line in lines.items():
            file.seek(offsets[line])
            name, count, text = file.readline().rstrip(b"\n").split(b"\t")
            assert (name.decode(), int(count)) == (image_id, 36)
            assert len(base64.b64decode(text)) == 36 * 2054 * 4


def test_the_image_file_of_the_example_is_no_feature_file(real_data: Path) -> None:
    with pytest.raises(InputError, match=r"train\.tsv: no VinVL features"):
        load_format("vinvl-tsv").open(real_data / "vinvl_mini" / "train.tsv")
    with pytest.raises(InputError, match=r"features\.tsv"):
        load_format("vinvl-tsv").open(real_data / "vinvl_mini")
