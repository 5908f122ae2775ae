"""Tables of anybody: how they are read, what is refused, what is scored."""

import csv
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semvlp.errors import ConfigError, InputError
from semvlp.eval.credits import intervals
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.files import sheet
from semvlp.eval.files.columns import parse_columns
from semvlp.eval.score_table import score
from semvlp.eval.task import Answer, Choice, Example
from semvlp.eval.tasks import tabular
from semvlp.eval.tasks.table import load_task
from semvlp.eval.tasks.tabular import Table

Save = Callable[[str], Path]
HEADER = "image,question,answer\n"


@pytest.fixture
def table(tmp_path: Path) -> Save:
    """`table(text)` writes a CSV file."""

    def _save(text: str) -> Path:
        path = tmp_path / "t.csv"
        path.write_bytes(text.encode())
        return path

    return _save


def _read(path: Path, split: str = "train", **columns: str) -> tuple[Table, list[Example]]:
    task = load_task("table").suited_to([path], columns)
    assert isinstance(task, Table)
    return task, task.read([path], split=split)


@pytest.mark.parametrize("delimiter", ",\t;|")
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_as_spreadsheets_write_them(table: Save, delimiter: str, newline: str) -> None:
    lines = ["Image,Question,Answer,Split", 'd/a.jpg,"two, ""and"" a;b\t|c",yes,', "b,is it?,no,"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline)
    writer.writerows(csv.reader(lines))
    _, examples = _read(table("\ufeff" + text.getvalue() + delimiter * 3 + newline))
    assert [e.text for e in examples] == ['two, "and" a;b\t|c', "is it?"]
    assert [(e.example_id, e.images, dict(e.target)) for e in examples] == [
        ("1", ("d/a.jpg",), {"yes": 1}),
        ("2", ("b",), {"no": 1}),
    ]


def test_what_is_left_out_is_counted(table: Save, caplog: pytest.LogCaptureFixture) -> None:
    _, examples = _read(table(HEADER + 'a,"one\ntwo",yes\n,,\nb,,yes\nc,q,no\n'))
    assert [e.text for e in examples] == ["one\ntwo", "", "q"]
    told = caplog.text
    assert "left out 1 empty rows" in told
    assert "1 rows have cells of several lines" in told
    assert "1 texts are empty" in told
    assert "t.csv:5" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        (HEADER, "no rows"),
        ("a,b\n1,2\n", "without image and text it has 'a, b'"),
        ("image,text,text\na,b,c\n", "'text' is twice"),
        (HEADER + "a,b\n", r"3 cells as the header has, but 1 have more or fewer \(.*t.csv:2\)"),
        (HEADER + 'a,"b,c\n', "t.csv:2: .*quotes"),
        (HEADER + ",q,yes\nb,q,no\n", r"name an image, but 1 do not \(.*t.csv:2\)"),
        (HEADER + "a,q,yes\nb,q,NaN\n", r"1 of 2 have none \(.*t.csv:3\)"),
        (
            "id,image,text\n7,a,b\n7,a,c\n",
            r"1 rows have that of another \(.*t.csv:3 as .*t.csv:2\)",
        ),
        ("id,image,text\n,a,b\n7,a,c\n", "have an id, but 1 do not"),
        ('{"image": "a"', "damaged"),
        ('[{"image": "a", "text": "b"}, 3]', "entry 2: must be an object"),
    ],
)
def test_one_clear_error(table: Save, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _read(table(text))


def test_columns_of_other_names(table: Save) -> None:
    path = table("Photo,Q,Truth\na,b,c\n")
    with pytest.raises(InputError, match="say --columns image=NAME"):
        _read(path)
    with pytest.raises(InputError, match=r"no column 'X'; it has 'Photo, Q, Truth'"):
        _read(path, image="X")
    _, examples = _read(path, **parse_columns(["image=Photo,question=Q", "label=Truth"]))
    assert (examples[0].text, examples[0].target) == ("b", {"c": 1})
    for wrong in ("colour=Q", "image="):
        with pytest.raises(ConfigError, match="--columns must say"):
            parse_columns([wrong])
    with pytest.raises(ConfigError, match="the task vqa reads official files"):
        load_task("vqa").suited_to([path], {"image": "Photo"})


def test_splits(table: Save, caplog: pytest.LogCaptureFixture) -> None:
    path = table("image,text,label,split\na,q,x,train\nb,q,y,Validation\nc,q,,test\nd,q,,\n")
    task, _ = _read(path)
    with caplog.at_level(logging.INFO):
        assert [e.example_id for e in task.read([path], split="val")] == ["2"]
    assert "1 of 4 rows are of split 'val', 2 of others, 1 of none" in caplog.text
    with pytest.raises(InputError, match=r"'train' \(1 rows\)"):
        task.read([path], split="hidden")


@pytest.mark.parametrize(
    "cell", ["yes|yes|no", "yes; yes; no", '["yes", "yes", "no"]', "['yes', 'yes', 'no']"]
)
def test_several_answers_in_a_cell(table: Save, cell: str) -> None:
    task, examples = _read(table(HEADER + f'a,q,"{cell.replace(chr(34), chr(34) * 2)}"\n'))
    assert (task.answering, task.loss, task.metric) == (True, "binary_cross_entropy", "vqa_score")
    assert examples[0].meta["people"] == ("yes", "yes", "no")
    assert task.score(examples, {"1": "Yes"}) == {
        "vqa_score": 100,
        "accuracy": 100,
        "macro_f1": 100,
    }


def test_ten_columns_of_answers(table: Save) -> None:
    names = ",".join(f"answer_{number}" for number in range(10))
    task, examples = _read(table(f"image,text,{names}\na,q,{'yes,' * 8}no,no\n"))
    assert task.answering
    assert examples[0].target == {"yes": 1.0, "no": 0.6}


def test_pairs(table: Save) -> None:
    task, examples = _read(table("left,right,text,label\na,b,q,x\nc,d,q,y\n"))
    assert (task.head, examples[1].images) == ("pair", ("c", "d"))


def test_labels_are_as_written_answers_in_any_case(table: Save) -> None:
    task, examples = _read(table(HEADER + "a,q,Yes\nb,q,yes\nc,q,Yes\nd,q,+\ne,q,-\n"))
    assert task.labels(examples) == ["+", "-", "Yes"]
    task, examples = _read(table("image,text,label\na,q,Yes\nb,q,yes\n"))
    assert task.labels(examples) == ["Yes", "yes"]


def test_too_many_labels(
    table: Save, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tabular, "MAX_LABELS", 2)
    rows = "a,q,x\na,q,x\nb,q,y\nb,q,y\nc,q,z\n"
    task, examples = _read(table("image,text,label\n" + rows))
    with pytest.raises(InputError, match="says 3 things, more than 2"):
        task.labels(examples)
    task, examples = _read(table(HEADER + rows))
    assert task.labels(examples) == ["x", "y"]
    assert "1 of 3 labels occur once ('z')" in caplog.text
    assert "they are those of 1 rows" in caplog.text


def test_mixed_types_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"image": 1, "text": "q", "label": label} for label in (1, "1", True, 0.5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, examples = _read(path)
    assert [e.meta["main"] for e in examples] == ["1", "1", "true", "0.5"]
    assert "several types, all read as text: 1 int, 1 str, 1 bool, 1 float" in caplog.text


def test_scores_of_two_classes(table: Save) -> None:
    text = "image,text,label,group\na,q,0,g\nb,q,1,g\nc,q,1,h\nd,q,0,i\n"
    task, examples = _read(table(text))
    given: dict[str | int, Answer] = {
        "1": Choice("0", 0.9),
        "2": Choice("1", 0.8),
        "3": Choice("0", 0.6),
        "4": Choice("1", 0.55),
    }
    scores = task.score(examples, given)
    # By falling chance of 1: rows 2, 4, 3, 1.
    assert scores == pytest.approx(
        {"accuracy": 50, "macro_f1": 50, "auroc": 75, "average_precision": 100 * (1 + 2 / 3) / 2}
    )
    details = task.details(examples, given)
    assert details["positive"] == "1"
    assert details["classes"]["1"] == {"precision": 50, "recall": 50, "f1": 50, "count": 2}
    grouped = task.credits(examples, given)
    assert grouped.keys() == scores.keys()
    without = [{k: v for k, v in e.meta.items() if k != "cluster"} for e in examples]
    alone = [
        Example(**{**_fields(e), "meta": meta}) for e, meta in zip(examples, without, strict=True)
    ]
    assert intervals(task.credits(alone, given)) != intervals(grouped)
    # A third class, or a prediction without a probability: nothing is known of the positive one.
    for other in (Choice("2", 0.5), Choice("0"), "0"):
        assert task.score(examples, {**given, "1": other}).keys() == {"accuracy", "macro_f1"}


def _fields(example: Example) -> dict[str, object]:
    return {name: getattr(example, name) for name in Example.__dataclass_fields__}


def test_a_predictions_file_of_anybody(table: Save, tmp_path: Path) -> None:
    path = table("id,image,text,label\nx,a,q,cat\n7,b,q,dog\n")
    task, _ = _read(path)
    predictions = tmp_path / "p.csv"
    predictions.write_text('id,prediction\nx,cat\n7,"dog"\n')
    assert score(task, [path], predictions)["accuracy"] == 100
    predictions.write_text("id,prediction,probability\nx,cat,0.9\n7,dog,0.7\n")
    assert score(task, [path], predictions)["auroc"] == 100
    for text, message in (
        ("x,cat\n", "must be the header id,prediction,probability"),
        ("id,prediction\nx,cat\n", r"1 missing \('7'\)"),
        ("id,prediction,probability\nx,cat,2\n7,dog,1\n", "must be in 0..1, got '2'"),
        ("id,prediction\nx\n7,dog\n", "line 2: must have 2 cells"),
    ):
        predictions.write_text(text)
        with pytest.raises(InputError, match=message):
            score(task, [path], predictions)


def test_an_evaluation_writes_choices(
    checkpoint: Callable[..., Path], official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    task, weights = load_task("table"), checkpoint("table")
    report = evaluate(
        task, weights, [official["table"]], shards, tmp_path / "e", EvalOptions(split="test")
    )
    header, *rows = report.file.read_text().splitlines()
    assert (report.file.name, header) == ("table_test.csv", "id,prediction,probability")
    assert [row.split(",")[0] for row in rows] == ["a.jpg", "b.jpg"]
    assert all(0.5 <= float(row.split(",")[2]) <= 1 for row in rows)
    assert report.scores is not None
    assert {"macro_f1", "auroc", "auroc_interval", "classes"} <= report.scores.keys()


_CELL = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(_CELL, _CELL, _CELL), min_size=1, max_size=6),
    delimiter=st.sampled_from(",\t;|"),
    newline=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_no_row_is_lost(
    tmp_path: Path, rows: list[tuple[str, str, str]], delimiter: str, newline: str, mark: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerows([("image", "text", "label"), *rows])
    path = tmp_path / "t.csv"
    path.write_bytes((mark + text.getvalue()).encode())
    refused = ""
    try:
        _, examples = _read(path)
    except InputError as error:
        refused = str(error)
    assert str(path) in refused or not refused
    if refused:
        return
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    assert [e.text for e in examples] == ["" if t in ("nan", "NaN") else t for t in _texts(filled)]


def _texts(rows: list[tuple[str, str, str]]) -> list[str]:
    return [text.strip() for _, text, _ in rows]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=80), st.sampled_from(["", HEADER, '[{"image": ', "{"]))
def test_any_file_is_read_or_refused(tmp_path: Path, text: str, start: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes((start + text).encode(errors="ignore"))
    try:
        _read(path)
    except InputError as error:
        refused = str(error)
    else:
        return
    assert str(path) in refused


def test_vqa_v2_as_a_table_is_scored_as_vqa(real_data: Path, tmp_path: Path) -> None:
    """8,977 questions with ten answers each, answered by the main answer of the next one."""
    official = [
        real_data / "vqa_v2" / f"{kind}_8977.json.gz" for kind in ("questions", "annotations")
    ]
    vqa = load_task("vqa")
    questions = vqa.read(official)
    path = tmp_path / "vqa.jsonl"
    rows = (
        {"id": e.example_id, "image": e.images[0], "question": e.text, "answer": e.meta["answers"]}
        for e in questions
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task, examples = _read(path)
    assert [dict(e.target) for e in examples] == [dict(e.target) for e in questions]
    shifted = [e.meta["main"] for e in questions[1:] + questions[:1]]
    wanted = vqa.score(
        questions, {e.example_id: a for e, a in zip(questions, shifted, strict=True)}
    )
    scores = task.score(examples, {e.example_id: a for e, a in zip(examples, shifted, strict=True)})
    assert scores["vqa_score"] == pytest.approx(wanted["accuracy"], abs=0.01)


def test_easy_vqa_as_a_table(real_data: Path, tmp_path: Path) -> None:
    rows = json.loads((real_data / "easy_vqa" / "train" / "questions.json").read_text())[:4000]
    path = tmp_path / "easy.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["image", "question", "answer"])
        writer.writerows([image, question, answer] for question, answer, image in rows)
    task, examples = _read(path)
    assert (len(examples), len(task.labels(examples)), task.answering) == (4000, 13, False)


def test_snli_ve_by_its_own_columns(real_data: Path) -> None:
    names = "image=Flikr30kID,text=sentence2,label=gold_label,id=pairID"
    path = real_data / "snli_ve" / "sample_data.jsonl"
    _, examples = _read(path, **parse_columns([names]))
    official = load_task("snli-ve").read([path])
    assert [(e.example_id, e.text, e.images, e.target) for e in examples] == [
        (e.example_id, e.text, e.images, e.target) for e in official
    ]


def test_a_table_is_read_once_for_the_task_and_its_examples(
    table: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def counting(path: Path) -> sheet.Sheet:
        asked.append(path)
        return sheet.read_sheet(path)

    monkeypatch.setattr(tabular, "read_sheet", counting)
    path = table(HEADER + "a,what?,yes\nb,what?,no\n")
    task, examples = _read(path)
    assert asked == [path]
    assert task.read([path]) == examples
    assert asked == [path, path]
