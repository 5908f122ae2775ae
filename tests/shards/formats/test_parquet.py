"""Parquet: what a store holds comes back to the bit, in bounded groups; damage is one error."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.shards.dataset.plan import Plan
from semvlp.shards.formats import import_export
from semvlp.shards.formats.import_export import export_format, import_format
from semvlp.shards.open import open_store
from semvlp.shards.record import Question, Regions, Sample, Texts
from semvlp.shards.writer import open_writer

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COUNTS = {"one": 36, "IMG_1-0123456789": 5, "none": 0, "many": 100, "lost": 3, "last": 7}
TEXTS = Texts(
    captions=("a dog, „red“", ""),
    questions=(
        Question(question="what?", answers={"dog": 1.0, "2": 0.3, "a/b": 1}, question_id=17),
        Question(question="who?", question_id="17"),
        Question(question="why?"),
    ),
)


def sample(key: str, profile: str) -> Sample:
    rng = np.random.default_rng(list(key.encode()))
    count = COUNTS[key]
    regions = Regions(
        image_id=key,
        width=640,
        height=427,
        boxes=rng.uniform(0, 400, (count, 4)).astype(np.float32),
        proposals=rng.uniform(0, 400, (count, 4)).astype(np.float32),
        features=rng.normal(size=(count, 12)).astype(np.float16),
        object_ids=rng.integers(0, 4, count).astype(np.int16),
        object_conf=rng.uniform(0, 1, count).astype(np.float16),
        attribute_ids=rng.integers(-1, 2, count).astype(np.int16),
        attribute_conf=rng.uniform(0, 1, count).astype(np.float16),
        profile=profile,
    )
    name = "IMG 1" if key.startswith("IMG") else ""
    return Sample(key=key, regions=regions, texts=TEXTS if count else Texts(), name=name)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images with texts, one of them refused."""
    folder = tmp_path_factory.mktemp("stored")
    plan = Plan(
        image_ids=tuple(COUNTS),
        extractor={"network": "test", "sizes": [1, 2]},
        object_labels=("ant", "bee", "cat", "dog"),
        attribute_labels=("red", "blue"),
        feature_size=12,
        samples_per_shard=4,
        texts_sha256="ab",
    )
    with open_writer(folder, plan, format="tar") as writer:
        for key in COUNTS:
            if key == "lost":
                writer.refuse(key, "lost.jpg", "cannot be decoded")
            else:
                writer.write(sample(key, plan.profile))
        writer.finish()
    return folder


@pytest.mark.parametrize("to", ["tar", "lmdb"])
def test_a_store_comes_back_to_the_bit(
    stored: Path, tmp_path: Path, to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semvlp.shards.formats import parquet as ours

    monkeypatch.setattr(ours, "GROUP_BYTES", 2 * 100 * 12 * 2)
    file = tmp_path / "regions.parquet"
    assert export_format(stored, file, to="parquet") == 5
    assert parquet.ParquetFile(file).num_row_groups == 3
    manifest = import_format(file, tmp_path / "back", from_="parquet", to=to)
    with open_store(stored) as before, open_store(tmp_path / "back") as after:
        assert list(after.image_ids) == list(before.image_ids)
        for index in range(len(before)):
            one, other = before.members(index), after.members(index)
            assert (one[0], bytes(one[1])) == (other[0], bytes(other[1]))
        for name in ("extractor", "object_labels", "attribute_labels", "texts_sha256", "profile"):
            assert getattr(manifest, name) == getattr(before.manifest, name)


def test_the_columns_are_what_others_read(stored: Path, tmp_path: Path) -> None:
    file = tmp_path / "regions.parquet"
    export_format(stored, file, to="parquet")
    table = parquet.read_table(file)
    row = {name: table.column(name)[1].as_py() for name in table.column_names}
    assert row["name"] == "IMG 1"
    assert row["width"] == 640
    assert np.array(row["features"]).shape == (5, 12)
    assert np.array(row["boxes"]).shape == (5, 4)
    assert row["captions"] == list(TEXTS.captions)
    assert row["questions"][0]["question_id"] == "17"
    assert json.loads(row["questions"][1]["question_id"]) == "17"
    assert json.loads(row["questions"][0]["answers"]) == {"dog": 1.0, "2": 0.3, "a/b": 1}


def rewritten(file: Path, name: str, values: list[Any], kind: Any = None) -> None:
    """Replace a column of a file, the metadata stay."""
    table = parquet.read_table(file)
    column = pa.array(values, kind or table.schema.field(name).type)
    index = table.schema.get_field_index(name)
    schema = table.schema.set(index, pa.field(name, column.type))
    parquet.write_table(table.set_column(index, schema.field(index), column), file)


def test_rows_that_are_no_samples_are_refused_by_line(
    stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "regions.parquet"
    export_format(stored, file, to="parquet")
    values = parquet.read_table(file).column("object_ids").to_pylist()
    values[0], values[1] = None, [70_000] * 5
    rewritten(file, "object_ids", values, pa.list_(pa.int64()))
    widths = parquet.read_table(file).column("width").to_pylist()
    rewritten(file, "width", [*widths[:3], None, *widths[4:]])
    manifest = import_format(file, tmp_path / "back", from_="parquet", to="tar")
    assert manifest.counts["samples"] == 2
    reasons = {refusal.image_id: refusal.reason for refusal in manifest.refused}
    assert set(reasons) == {"one", "IMG_1-0123456789", "many"}
    assert "does not hold a sample" in reasons["one"]
    assert "70000" in reasons["IMG_1-0123456789"]
    assert "a cell is empty" in reasons["many"]


def test_damage_is_one_clear_error(stored: Path, tmp_path: Path) -> None:
    file = tmp_path / "regions.parquet"
    export_format(stored, file, to="parquet")
    whole = file.read_bytes()
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"damaged\.parquet: is no parquet file, or a damaged one"):
        import_format(damaged, tmp_path / "x", from_="parquet", to="tar")
    middle = len(whole) // 3
    damaged.write_bytes(whole[:middle] + bytes(16) + whole[middle + 16 :])
    with pytest.raises(InputError, match=r"damaged\.parquet: is no parquet file, or a damaged one"):
        import_format(damaged, tmp_path / "y", from_="parquet", to="tar")
    foreign = tmp_path / "foreign.parquet"
    parquet.write_table(pa.table({"key": ["a"]}), foreign)
    with pytest.raises(InputError, match=r"foreign\.parquet: is not what `semvlp shards export"):
        import_format(foreign, tmp_path / "z", from_="parquet", to="tar")
    keys = parquet.read_table(file).column("key").to_pylist()
    rewritten(file, "key", [keys[0], *keys[:-1]])
    with pytest.raises(InputError, match=r"regions\.parquet: .*'one' is listed twice"):
        import_format(file, tmp_path / "w", from_="parquet", to="tar")


def test_what_cannot_be_asked_for(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="--source"):
        import_format(stored, tmp_path / "x", from_="parquet", to="tar", source="other")
    monkeypatch.setitem(sys.modules, "semvlp.shards.formats.parquet", None)
    monkeypatch.delattr(import_export.__package__ + ".parquet", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'semvlp\[parquet\]'"):
        export_format(stored, tmp_path / "x.parquet", to="parquet")


def test_an_import_goes_on_where_it_stopped(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from semvlp.shards.formats import parquet as ours

    file = tmp_path / "regions.parquet"
    export_format(stored, file, to="parquet")
    real, calls = ours._sample, []

    def dying(*args: Any) -> Sample:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args)

    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(ours, "_sample", dying)
    with pytest.raises(KeyboardInterrupt):
        import_format(file, tmp_path / "back", from_="parquet", to="tar")
    manifest = import_format(file, tmp_path / "back", from_="parquet", to="tar")
    assert manifest.counts["samples"] == 5
    whole = import_format(file, tmp_path / "whole", from_="parquet", to="tar")
    assert [each.sha256 for each in manifest.shards] == [each.sha256 for each in whole.shards]
