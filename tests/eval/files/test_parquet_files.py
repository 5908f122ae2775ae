"""Annotations and predictions in parquet are those of the files they were made from."""

import json
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import InputError
from semvlp.eval.files.sheet import read_sheet
from semvlp.eval.files.submission import read
from semvlp.eval.score_table import score
from semvlp.eval.tasks.table import load_task
from semvlp.eval.tasks.vqa import Vqa

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = [
    {"image": f"im{number}", "text": "is it?", "label": "yes" if number % 3 else "no", "id": number}
    for number in range(9)
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path, write_page_checksum=True)
    return path


def test_a_table_and_its_predictions_are_scored_as_the_csv_is(tmp_path: Path) -> None:
    lines = tmp_path / "table.jsonl"
    lines.write_text("\n".join(map(json.dumps, ROWS)))
    table = written(tmp_path / "table.parquet", ROWS)
    said = [
        {"id": str(row["id"]), "prediction": "yes", "probability": 0.5 + row["id"] / 20}
        for row in ROWS
    ]
    text = "".join(f"{row['id']},{row['prediction']},{row['probability']}\n" for row in said)
    (tmp_path / "said.csv").write_text("id,prediction,probability\n" + text)
    scores = [
        score(load_task("table").suited_to([one], {}), [one], other, split="test")
        for one, other in (
            (lines, tmp_path / "said.csv"),
            (table, written(tmp_path / "said.parquet", said)),
            (lines, tmp_path / "said.parquet"),
        )
    ]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0]["accuracy"] == pytest.approx(600 / 9)


def test_predictions_of_a_json_form_too(tmp_path: Path) -> None:
    rows = [{"question_id": 3, "answer": "a cat"}, {"question_id": 4, "answer": "2"}]
    assert read(Vqa().form, written(tmp_path / "vqa.parquet", rows)) == {3: "a cat", 4: "2"}


def test_nan_is_an_empty_cell_and_images_are_refused(tmp_path: Path) -> None:
    rows = [{"image": "a", "score": 1.0}, {"image": "b", "score": float("nan")}]
    sheet = read_sheet(written(tmp_path / "a.parquet", rows))
    assert [row.cells["score"] for row in sheet.rows] == [1.0, None]
    pictures = written(tmp_path / "b.parquet", [{"image": {"bytes": b"\xff\xd8"}}])
    with pytest.raises(InputError, match=r"b\.parquet: the column image holds bytes"):
        read_sheet(pictures)


def test_damage_is_one_error(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.parquet", ROWS).read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"a\.parquet: is no parquet file, or a damaged one"):
        read_sheet(tmp_path / "a.parquet")
