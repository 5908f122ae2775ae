"""Leaderboard files: their bytes, the way back, and everything a leaderboard would refuse."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import InputError
from semvlp.eval.files.submission import check_ids
from semvlp.eval.task import Answer, ExampleId, Rank, Referent
from semvlp.eval.tasks.table import load_task

FILES: dict[str, tuple[dict[ExampleId, Answer], str, str]] = {
    "vqa": (
        {2: "yes", 1: "größe"},
        '[{"question_id": 2, "answer": "yes"}, {"question_id": 1, "answer": "größe"}]\n',
        "vqa_dev.json",
    ),
    "gqa": (
        {"01827492": "yes", "1827492": "no"},
        '[{"questionId": "01827492", "prediction": "yes"}, '
        '{"questionId": "1827492", "prediction": "no"}]\n',
        "gqa_dev.json",
    ),
    "nlvr2": (
        {"dev-1-0-0": "True", "dev-1-0-1": "False"},
        "dev-1-0-0,True\ndev-1-0-1,False\n",
        "nlvr2_dev.csv",
    ),
    "nlvr": (
        {"dev-1572-0-0.png": "true", "dev-1572-0-1.png": "false"},
        "dev-1572-0-0.png,true\ndev-1572-0-1.png,false\n",
        "nlvr_dev.csv",
    ),
    "snli-ve": (
        {"1.jpg#0r1e": "entailment", "1.jpg#0r1n": "neutral"},
        '{"pairID": "1.jpg#0r1e", "label": "entailment"}\n'
        '{"pairID": "1.jpg#0r1n", "label": "neutral"}\n',
        "snli_ve_dev.jsonl",
    ),
    "retrieval": (
        {7: Rank(1, 0), "a.jpg": Rank(3, 1)},
        '{"captions": [{"caption_id": 7, "rank": 1, "ties": 0}], '
        '"images": [{"image": "a.jpg", "rank": 3, "ties": 1}]}\n',
        "retrieval_dev.json",
    ),
    "refcoco": (
        {4: Referent(3, (1, 2.5, 30, 40)), 2: Referent(1, (0, 0, 5, 5))},
        '[{"ref_id": 3, "sent_id": 4, "box": [1, 2.5, 30, 40]}, '
        '{"ref_id": 1, "sent_id": 2, "box": [0, 0, 5, 5]}]\n',
        "refcoco_dev.json",
    ),
}

REFUSED = [
    ("vqa", "no file", None, "cannot be read"),
    ("vqa", "JSON lines", '{"question_id": 1, "answer": "a"}\n{}\n', "looks like JSON lines"),
    ("vqa", "an object", '{"results": []}', "must be one JSON array, got dict"),
    ("vqa", "a bare NaN", '[{"question_id": 1, "answer": "a", "p": NaN}]', "bare NaN"),
    ("vqa", "a text id", '[{"question_id": "1", "answer": "a"}]', "entry 1: 'question_id' must be"),
    ("vqa", "a float id", '[{"question_id": 1.0, "answer": "a"}]', "of type int, got 1.0"),
    ("vqa", "a true id", '[{"question_id": true, "answer": "a"}]', "of type int, got True"),
    ("vqa", "a number", '[{"question_id": 1, "answer": 1}]', r"\(id 1\): 'answer' must be"),
    ("vqa", "null", '[{"question_id": 1, "answer": null}]', "of type str, got None"),
    ("vqa", "no answer", '[{"question_id": 1}]', "with 'answer'"),
    ("vqa", "BOM", '\ufeff[{"question_id": 1, "answer": "a"}]', "byte order mark"),
    ("gqa", "a number id", '[{"questionId": 1, "prediction": "a"}]', "of type str, got 1"),
    ("gqa", "GQA in VQA's form", '[{"question_id": "1", "answer": "a"}]', "with 'questionId'"),
    ("nlvr2", "a header", "identifier,prediction\ndev-1-0-0,True\n", "line 1: .*no header"),
    ("nlvr2", "a blank", "dev-1-0-0, True\n", "line 1: must be `id,label` without blanks"),
    ("nlvr2", "a number", "dev-1-0-0,True\ndev-1-0-1,1\n", "line 2: the label .* got '1'"),
    ("nlvr2", "a blank last line", "dev-1-0-0,True\n\n", "line 2: blank lines"),
    ("nlvr2", "a tab", "dev-1-0-0\tTrue\n", "line 1: must be `id,label`"),
    ("nlvr2", "quotes", '"dev-1-0-0","True"\n', "line 1: must be `id,label`"),
    ("nlvr2", "three fields", "dev-1-0-0,True,0.9\n", "line 1: must be `id,label`"),
    ("nlvr2", "BOM", "\ufeffdev-1-0-0,True\n", "byte order mark"),
    ("nlvr2", "the same id", "a,True\nb,True\na,False\n", r"1 do again \('a in line 3'\)"),
    ("nlvr2", "nothing", "", "line 1: blank lines"),
    ("snli-ve", "a number", '{"pairID": "a", "label": 1}\n', "'label' must be of type str"),
    ("snli-ve", "no label", '{"pairID": "a", "label": "-"}\n', "line 1: the label must be one of"),
    ("snli-ve", "an array", '[{"pairID": "a", "label": "neutral"}]\n', "must be an object with"),
    ("retrieval", "rank 0", '{"captions": [{"caption_id": 1, "rank": 0, "ties": 0}]}', "start at"),
]


@pytest.mark.parametrize("name", FILES)
def test_bytes_and_way_back(name: str, tmp_path: Path) -> None:
    task = load_task(name)
    answers, expected, file_name = FILES[name]
    assert task.file_name("dev") == file_name
    written = task.write(answers, tmp_path / "new" / file_name)
    data = written.path.read_bytes()
    assert data == expected.encode()
    assert (written.count, written.sha256) == (2, hashlib.sha256(data).hexdigest())
    assert list(task.read_answers(written.path).items()) == list(answers.items())
    assert [path.name for path in written.path.parent.iterdir()] == [file_name]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param(name, text, message, id=f"{name}: {what}")
        for name, what, text, message in REFUSED
    ],
)
def test_refused(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "answers"
    if text is not None:
        path.write_bytes(text.encode())
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{message}"):
        load_task(name).read_answers(path)


def test_what_the_official_scripts_accept_is_accepted(tmp_path: Path) -> None:
    """metrics.py lowers labels and strips line ends."""
    path = tmp_path / "answers.csv"
    path.write_bytes(b"dev-1-0-0,true\r\ndev-1-0-1,FALSE")
    assert load_task("nlvr2").read_answers(path) == {"dev-1-0-0": "True", "dev-1-0-1": "False"}


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("nlvr2", {"dev-1,0": "True"}),
        ("nlvr2", {"dev-1": "maybe"}),
        ("vqa", {"1": "yes"}),
        ("vqa", {}),
        ("gqa", {1: "yes"}),
    ],
)
def test_what_would_be_refused_is_never_written(
    name: str, answers: dict[ExampleId, Answer], tmp_path: Path
) -> None:
    path = tmp_path / "answers"
    with pytest.raises(InputError, match="answers: "):
        load_task(name).write(answers, path)
    assert not path.exists()


def test_check_ids_reports_counts_and_first_ids() -> None:
    expected: list[Any] = [f"q{n}" for n in range(20)]
    with pytest.raises(InputError) as caught:
        check_ids(expected, [*expected[12:], "x"], "file.json")
    message = str(caught.value)
    assert message.startswith("file.json: must answer each of the 20 ids")
    assert "12 missing ('q0', 'q1'" in message
    assert "'q9', ...)" in message
    assert "1 not in the annotations ('x')" in message


@pytest.mark.parametrize(
    ("expected", "given"), [(["01827492"], ["1827492"]), ([5], ["5"]), (["5"], [5])]
)
def test_check_ids_shows_casts(expected: list[ExampleId], given: list[ExampleId]) -> None:
    with pytest.raises(InputError, match="1 ids were cast"):
        check_ids(expected, given, "file")


@pytest.mark.parametrize("name", FILES)
def test_score_demands_exactly_the_ids(
    name: str, official: dict[str, Path], save: Callable[..., Path]
) -> None:
    task = load_task(name)
    examples = task.read([official[name]], split="test")
    answers: dict[ExampleId, Answer] = {
        key: Rank(1, 0) if name == "retrieval" else "True" for key in task.ids(examples)
    }
    if name == "refcoco":
        answers = {e.example_id: Referent(e.meta["ref_id"], (1, 2, 3, 4)) for e in examples}
    task.score(examples, answers)
    first = next(iter(answers))
    with pytest.raises(InputError, match="1 not in the annotations"):
        task.score(examples, {**answers, "more": answers[first]})
    with pytest.raises(InputError, match=f"1 missing .{first!r}"):
        task.score(examples, {key: answers[key] for key in answers if key != first})
