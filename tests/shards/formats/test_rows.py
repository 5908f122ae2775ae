"""Rows of tab-separated files are found and read wherever they lie."""

from pathlib import Path

import pytest

from semvlp.shards.formats import tsv


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_rows_are_found_wherever_a_chunk_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, end: str
) -> None:
    monkeypatch.setattr(tsv, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(tsv, "LONG_COLUMN", 8)
    path = tmp_path / "rows.tsv"
    path.write_bytes(("a.jpg\t1\tshort\r\n\nb\t2\t\n" + "c\t" + "long" * 50 + end).encode())
    offsets = tsv.index_rows([path]).offsets
    rows = {name: [bytes(column) for column in tsv.read_row(offsets[name])] for name in offsets}
    assert rows == {
        "a": [b"a.jpg", b"1", b"short"],
        "b": [b"b", b"2", b""],
        "c": [b"c", b"long" * 50],
    }


def test_a_row_without_an_id_is_known_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(b"a\t1\n" + b"x" * 5000 + b"\n\t2\n \n\xff\t3\nb\t4")
    rows = tsv.index_rows([path])
    assert {name: lost.reason for name, lost in rows.unreadable.items()} == {
        f"rows.tsv:{start}": f"the row at byte {start} does not begin with an image id"
        for start in (4, 5005)
    }
    assert list(rows.offsets) == ["a", "\udcff", "b"]
    assert rows.last == {"b"}
