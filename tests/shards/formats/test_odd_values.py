"""No value of a file ends an import: each record is read or refused, and none is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.formats.import_export import import_format
from semvlp.shards.formats.table import FORMATS as KNOWN
from semvlp.shards.open import open_store
from semvlp.shards.record import key_of
from tests.shards.formats.odd_values import COUNT, FORMATS, GOOD, cases

TEXT_FEATURES = "features"


def test_every_format_has_odd_values_and_this_is_their_number() -> None:
    assert set(FORMATS) == set(KNOWN)
    page = Path(__file__).parents[3] / "docs" / "trust.md"
    assert f"{COUNT:,} odd values" in page.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_each_record_is_read_or_refused(tmp_path: Path, name: str) -> None:
    fields, values, write = FORMATS[name]
    images = dict(cases(fields, values))
    (tmp_path / "set").mkdir()
    write(tmp_path / "set", images)
    manifest = import_format(tmp_path / "set", tmp_path / "out", from_=name, to="tar")
    assert manifest.counts["samples"] + manifest.counts["errors"] == len(images)
    assert all(refusal.reason and refusal.file for refusal in manifest.refused)
    with open_store(tmp_path / "out") as store:
        assert set(GOOD) <= set(store.image_ids)
        good = store.sample(store.index_of(GOOD[0])).regions
        for image_id in store.image_ids:
            regions = store.sample(store.index_of(image_id)).regions
            if not image_id.startswith(("features", "x-", "image_features", "place", "end")):
                # What another field says may leave out regions, and never changes one.
                assert all(
                    any(np.array_equal(a, b) for b in good.features) for a in regions.features
                )


@pytest.fixture
def few(tmp_path: Path) -> Callable[..., Path]:
    """Three good images of a format under other names, and some changes."""

    def write(name: str, names: Any, **changed: Any) -> Path:
        fields, _, write = FORMATS[name]
        folder = tmp_path / "set"
        folder.mkdir()
        write(folder, {image: {**fields, **changed.get(image, {})} for image in names})
        return folder

    return write


@pytest.mark.parametrize("name", FORMATS)
def test_any_name_is_taken_under_a_key_of_its_own(
    few: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    names = ("IMG 1", "photo.v2", "写真", "x" * 120, "plain")
    manifest = import_format(few(name, names), tmp_path / "out", from_=name, to="lmdb")
    assert manifest.counts == {"samples": 5, "captions": 0, "questions": 0, "errors": 0}
    with open_store(tmp_path / "out") as store:
        assert set(store.image_ids) == set(map(key_of, names))
        stored = [store.sample(index) for index in range(len(store))]
    assert {sample.name or sample.key for sample in stored} == set(names)


@pytest.mark.parametrize("name", ["lxmert-tsv", "vilbert-lmdb", "milvlg-npz"])
def test_a_first_image_of_another_width_costs_only_itself(
    few: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    feature = "x" if name == "milvlg-npz" else "features"
    narrow: Any = np.ones((2, 1), np.float32)
    narrow = b"AACAPwAAgD8=" if name == "lxmert-tsv" else narrow
    folder = few(name, ("a", "b", "c"), a={feature: narrow})
    manifest = import_format(folder, tmp_path / "out", from_=name, to="tar")
    assert [refusal.image_id for refusal in manifest.refused] == ["a"]
    assert manifest.counts["samples"] == 2


def test_rows_without_a_name_are_refused_by_their_places(
    few: Callable[..., Path], tmp_path: Path
) -> None:
    file = few("butd-tsv", ("a", "b")) / "all.tsv"
    row = file.read_bytes().splitlines()[0].split(b"\t", 1)[1]
    file.write_bytes(b"\xff\xfe\t" + row + b"\n" + file.read_bytes() + b"\t" + row + b"\n")
    manifest = import_format(file, tmp_path / "out", from_="butd-tsv", to="tar")
    assert manifest.counts["samples"] == 2
    assert [refusal.reason for refusal in manifest.refused] == [
        "its name is not text",
        f"the row at byte {len(row) * 3 + 10} does not begin with an image id",
    ]


def test_a_damaged_first_row_does_not_hide_the_layout(
    few: Callable[..., Path], tmp_path: Path
) -> None:
    file = few("lxmert-tsv", ("a", "b")) / "all.tsv"
    file.write_bytes(b"broken\t1\n" + file.read_bytes())
    manifest = import_format(file, tmp_path / "out", from_="lxmert-tsv", to="tar")
    assert [refusal.image_id for refusal in manifest.refused] == ["broken"]


def test_a_file_cut_short_is_exit_4_however_little_it_is(
    few: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = few("butd-tsv", [f"image-{number}" for number in range(60)]) / "all.tsv"
    file.write_bytes(file.read_bytes()[:-20])
    command = ["shards", "import", str(file), str(tmp_path / "out"), "--from", "butd-tsv"]
    assert run(cli, "semvlp", command) == 4
    assert "1 of 60 were refused" in capsys.readouterr().err
    refused = read_manifest(tmp_path / "out").refused
    assert [refusal.image_id for refusal in refused] == ["image-59"]
    assert "what stands behind it in the file is lost" in refused[0].reason
    # Said of every start, and let pass by who has read it.
    assert run(cli, "semvlp", command) == 4
    assert run(cli, "semvlp", [*command, "--max-bad", "1"]) == 0
    assert "(1 refused: 1 column features" in capsys.readouterr().out
