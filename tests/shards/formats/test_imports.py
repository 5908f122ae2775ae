"""Imports of what is damaged, cut short, repeated or in several files, and of stopped ones."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import InputError
from semvlp.shards.formats import import_export
from semvlp.shards.formats.import_export import export_format, import_format
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions
from semvlp.shards.stores.store import Store
from tests.shards.formats.conftest import (
    FEATURE_SIZE,
    IDS,
)


@pytest.fixture
def tsv(original: Store, tmp_path: Path) -> Callable[..., Path]:
    """The images as a bottom-up-attention TSV, whose rows may be changed."""
    export_format(original.path, tmp_path / "whole.tsv", to="butd-tsv")
    rows = [line.split("\t") for line in (tmp_path / "whole.tsv").read_text().splitlines()]

    def write(change: Callable[[list[list[str]]], list[list[str]]] = lambda rows: rows) -> Path:
        path = tmp_path / "set.tsv"
        changed = change([list(row) for row in rows])
        path.write_text("".join("\t".join(row) + "\n" for row in changed))
        return path

    return write


def _replace(column: int, value: Callable[[str], str]) -> Callable[..., list[list[str]]]:
    def change(rows: list[list[str]]) -> list[list[str]]:
        rows[1][column] = value(rows[1][column])
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_replace(5, lambda text: "*" + text[1:]), "column features is damaged"),
        (_replace(5, lambda text: text[:-8]), "column features"),
        (_replace(4, lambda text: text[:-8]), "column boxes"),
        (_replace(3, lambda text: "7"), "not a multiple of 7"),
        (_replace(3, lambda text: "five"), "num_boxes must be a whole number"),
        (_replace(1, lambda text: "100"), "are width and height exchanged"),
        (_replace(1, lambda text: "0"), "size must be positive"),
        (lambda rows: [rows[0], rows[1][:3], *rows[2:]], "3 of 6 columns"),
    ],
)
def test_a_damaged_row_is_refused_and_its_neighbours_are_kept(
    tsv: Callable[..., Path], tmp_path: Path, change: Any, reason: str
) -> None:
    path = tsv(change)
    manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")
    assert manifest.counts["samples"] == len(IDS) - 1
    lines = (tmp_path / "out" / "refused.jsonl").read_text().splitlines()
    entry = json.loads(lines[0])
    assert len(lines) == 1
    assert entry["id"] == IDS[1]
    assert entry["file"] == str(path)
    assert reason in entry["reason"]


def test_a_file_cut_short_loses_only_its_last_row(tsv: Callable[..., Path], tmp_path: Path) -> None:
    path = tsv()
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")
    assert [refusal.image_id for refusal in manifest.refused] == [IDS[-1]]
    assert manifest.counts["samples"] == len(IDS) - 1


def test_repeated_rows_are_counted_and_left_out(
    tsv: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tsv(lambda rows: [*rows, rows[0], rows[1]])
    with caplog.at_level(logging.WARNING):
        manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")
    assert manifest.counts == {"samples": 4, "captions": 0, "questions": 0, "errors": 0}
    assert "left out 2 rows" in caplog.text


def test_the_size_is_learnt_behind_a_damaged_first_row(
    tsv: Callable[..., Path], tmp_path: Path
) -> None:
    path = tsv(lambda rows: [[*rows[0][:5], "*"], *rows[1:]])
    manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")
    assert (manifest.feature_size, manifest.counts["errors"]) == (FEATURE_SIZE, 1)


def test_nothing_readable_is_an_error(tsv: Callable[..., Path], tmp_path: Path) -> None:
    path = tsv(lambda rows: [[*row[:5], "*"] for row in rows])
    with pytest.raises(InputError, match=r"set\.tsv: not one image.*features is damaged"):
        import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")


def test_an_import_that_was_stopped_goes_on(
    tsv: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, convert = tsv(), import_export.to_regions
    seen: list[str] = []

    def stop_at_third(raw: Any, image_id: str, *rest: Any, **named: Any) -> Regions:
        seen.append(image_id)
        if len(seen) == 4:  # the first call only learns the feature size
            raise KeyboardInterrupt
        return convert(raw, image_id, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(import_export, "to_regions", stop_at_third)
        patch.setattr(import_export, "to_regions", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            import_format(path, tmp_path / "out", from_="butd-tsv", to="lmdb")
        seen.clear()
        seen.extend(["x"] * 10)
        manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="lmdb")
    assert seen[10:] == [IDS[0], IDS[2], IDS[3]]
    assert manifest.counts["samples"] == len(IDS)


def test_sets_of_one_named_source_share_a_profile(tsv: Callable[..., Path], tmp_path: Path) -> None:
    path = tsv()
    other = path.rename(tmp_path / "other.tsv")
    profiles = [
        import_format(
            other, tmp_path / f"{source}{number}", from_="butd-tsv", to="tar", source=source
        ).profile
        for number, source in enumerate(("butd-36", "butd-36", "", "vinvl"))
    ]
    assert profiles[0] == profiles[1]
    assert len(set(profiles)) == 3


def test_a_directory_of_tsvs_is_one_data_set(tsv: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    tsv(lambda rows: rows[:2]).rename(folder / "a.tsv")
    tsv(lambda rows: rows[2:]).rename(folder / "b.tsv")
    import_format(folder, tmp_path / "out", from_="butd-tsv", to="tar")
    with open_store(tmp_path / "out") as store:
        assert tuple(store.image_ids) == IDS
