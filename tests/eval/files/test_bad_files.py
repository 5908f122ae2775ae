"""What `semvlp score` says to a file that a leaderboard refuses, ignores or scores as zero.

One test a row of what the official scripts do with bad files: some of them count such a file
as 0 %, some end without a word.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import InputError
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.score_table import score
from semvlp.eval.task import Answer, Choice, ExampleId, Rank, Referent
from semvlp.eval.tasks.table import TASKS

JSON_ARRAYS = ("vqa", "gqa")
LINES = ("nlvr2", "nlvr", "snli-ve")
TEXTS = ("nlvr2", "nlvr")
ANSWERS = {"nlvr2": "True", "nlvr": "true", "snli-ve": "neutral", "vqa": "yes", "gqa": "red"}

Write = Callable[..., Path]


@pytest.fixture
def good(official: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """`good("nlvr2")` is a leaderboard file of that task that scores."""

    def _good(name: str) -> Path:
        task = TASKS[name]
        ids = task.ids(task.read([official[name]], split="test"))
        answer: Answer = Choice("yes", 0.625) if name == "table" else Rank(1, 0)
        answers: dict[ExampleId, Answer] = {key: ANSWERS.get(name, answer) for key in ids}
        if name == "refcoco":
            answers = {key: Referent(number, (1, 2, 3, 4)) for number, key in enumerate(ids)}
        path = tmp_path / "answers"
        task.write(answers, path)
        return path

    return _good


@pytest.fixture
def refuse(official: dict[str, Path], good: Callable[[str], Path]) -> Callable[..., None]:
    """`refuse(task, change, message)` scores the good file after `change` of its text."""

    def _refuse(name: str, change: Callable[[str], str], message: str) -> None:
        path = good(name)
        score(TASKS[name], [official[name]], path)
        text = path.read_bytes().decode()
        changed = change(text)
        assert changed != text
        path.write_bytes(changed.encode())
        with pytest.raises(InputError, match=f"(?s)^{re.escape(str(path))}: .*{message}"):
            score(TASKS[name], [official[name]], path)

    return _refuse


def _entries(change: Callable[[list[Any]], Any]) -> Callable[[str], str]:
    """Change the list of a JSON array, or of JSON lines or comma lines."""

    def changed(text: str) -> str:
        if text.startswith("["):
            return json.dumps(change(json.loads(text))) + "\n"
        lines: list[str] = change(text.removesuffix("\n").split("\n"))
        return "\n".join(lines) + "\n"

    return changed


@pytest.mark.parametrize("name", [*JSON_ARRAYS, *LINES])
def test_missing(name: str, refuse: Callable[..., None]) -> None:
    refuse(name, _entries(lambda entries: entries[:-1]), r"1 missing \(")


@pytest.mark.parametrize("name", JSON_ARRAYS)
def test_extra(name: str, refuse: Callable[..., None]) -> None:
    field, more = ("question_id", 77) if name == "vqa" else ("questionId", "77")
    refuse(
        name,
        _entries(lambda entries: [*entries, {**entries[0], field: more}]),
        r"1 not in the annotations \('?77'?\)",
    )


@pytest.mark.parametrize("name", LINES)
def test_an_extra_line(name: str, refuse: Callable[..., None]) -> None:
    def more(lines: list[str]) -> list[str]:
        return [*lines, re.sub(r"dev-1-0|a\.jpg", "dev-9-9", lines[0])]

    refuse(name, _entries(more), r"1 not in the annotations \('dev-9-9")


@pytest.mark.parametrize("name", [*JSON_ARRAYS, *LINES])
def test_duplicate(name: str, refuse: Callable[..., None]) -> None:
    """Official scripts let the last one win."""
    refuse(name, _entries(lambda entries: [*entries, entries[0]]), "once; 1 do again")


@pytest.mark.parametrize("name", [*JSON_ARRAYS, *LINES])
def test_the_order_of_entries_is_free(
    name: str, official: dict[str, Path], good: Callable[[str], Path]
) -> None:
    path = good(name)
    before = score(TASKS[name], [official[name]], path)
    path.write_text(_entries(lambda entries: entries[::-1])(path.read_text()))
    assert score(TASKS[name], [official[name]], path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["captions"].pop(), r"1 missing \("),
        (lambda document: document["images"].pop(), r"1 missing \("),
        (lambda document: document["captions"].append(document["captions"][0]), "once; 1 do again"),
        (lambda document: document["images"][0].update(image="z.jpg"), "1 not in the annotations"),
        (lambda document: document["images"][0].update(rank=1.0), "'rank' must be of type int"),
        (lambda document: document.pop("images"), "must be an object with 'images'"),
    ],
    ids=["caption missing", "image missing", "twice", "unknown", "float", "no images"],
)
def test_rank_files(
    change: Callable[[Any], object], message: str, refuse: Callable[..., None]
) -> None:
    def changed(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    refuse("retrieval", changed, message)


def test_the_case_of_an_answer(
    official: dict[str, Path],
    good: Callable[[str], Path],
    save: Callable[..., Path],
    make: type,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both NLVR scripts ignore it; GQA's does not and scores 0, nor VQA's where all agree."""
    for name, label in (("nlvr2", "True"), ("nlvr", "true")):
        path = good(name)
        path.write_text(path.read_text().replace(label, "tRUE"))
        assert score(TASKS[name], [official[name]], path)["accuracy"] == 100
    people = save("people.json", make.vqa({1000: ["yes"] * 10, 2000: ["yes"] * 9 + ["no"]}))
    path = good("vqa")
    path.write_text(path.read_text().replace('"yes"', '"Yes"'))
    assert score(TASKS["vqa"], [people], path)["accuracy"] == 50
    assert "accuracy is" not in caplog.text
    path = good("gqa")
    path.write_text(path.read_text().replace('"red"', '"Red"'))
    assert score(TASKS["gqa"], [official["gqa"]], path)["accuracy"] == 0
    assert "accuracy is 0.00" in caplog.text


@pytest.mark.parametrize(
    ("name", "field", "kind"),
    [("vqa", "question_id", str), ("vqa", "question_id", float), ("gqa", "questionId", int)],
)
def test_ids_of_another_type(
    name: str, field: str, kind: Callable[[Any], Any], refuse: Callable[..., None]
) -> None:
    refuse(
        name,
        _entries(lambda entries: [{**e, field: kind(e[field])} for e in entries]),
        f"entry 1: '{field}' must be of type",
    )


def test_ids_that_went_through_a_number(refuse: Callable[..., None]) -> None:
    """GQA: "01" and "1" are two questions; as numbers they are one."""
    cast = _entries(
        lambda entries: [{**e, "questionId": str(int(e["questionId"]))} for e in entries]
    )
    refuse("gqa", cast, "once; 1 do again")
    lost = _entries(lambda entries: [{**entries[0], "questionId": "001"}, *entries[1:]])
    refuse("gqa", lost, "1 ids were cast to another type or lost zeros")


@pytest.mark.parametrize("name", JSON_ARRAYS)
@pytest.mark.parametrize("value", [1, None, True, ["yes"]])
def test_answers_that_are_no_text(name: str, value: object, refuse: Callable[..., None]) -> None:
    field = "answer" if name == "vqa" else "prediction"
    change = _entries(lambda entries: [{**entries[0], field: value}, *entries[1:]])
    refuse(name, change, f"'{field}' must be of type str, got {re.escape(repr(value))}")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["identifier,prediction", *lines], "line 1: must be `id,label` and no head"),
        (lambda lines: [line[: line.index(",")] + ",1" for line in lines], "no header|must be one"),
        (lambda lines: [*lines, ""], "blank lines are not allowed"),
        (lambda lines: [lines[0], "", *lines[1:]], "line 2: blank lines"),
        (lambda lines: [line.replace(",", ", ") for line in lines], "line 1: .* without blanks"),
        (lambda lines: [line.replace(",", "\t") for line in lines], "line 1: must be `id,label`"),
        (lambda lines: [f'"{line}"' for line in lines], "line 1: must be `id,label`"),
        (lambda lines: [f"{line},0.9" for line in lines], "line 1: must be `id,label`"),
        (lambda lines: ["\ufeff" + lines[0], *lines[1:]], "byte order mark"),
    ],
    ids=["header", "1/0", "blank end", "blank inside", "blank", "TAB", "quotes", "third", "BOM"],
)
def test_comma_lines(
    name: str,
    change: Callable[[list[str]], list[str]],
    message: str,
    refuse: Callable[..., None],
) -> None:
    refuse(name, _entries(change), message)


def test_ids_of_the_image_instead_of_the_pair(refuse: Callable[..., None]) -> None:
    """NLVR2 has `.png` in no id; NLVR has it in every one."""
    add = _entries(lambda lines: [line.replace(",", ".png,") for line in lines])
    refuse("nlvr2", add, "3 missing .* and 3 not in the annotations")
    remove = _entries(lambda lines: [line.replace(".png", "") for line in lines])
    refuse("nlvr", remove, "18 missing .* and 18 not in the annotations")


@pytest.mark.parametrize("name", ["nlvr2", "nlvr", "snli-ve", *JSON_ARRAYS])
def test_line_ends_of_windows_are_fine(
    name: str, official: dict[str, Path], good: Callable[[str], Path]
) -> None:
    path = good(name)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert score(TASKS[name], [official[name]], path)["accuracy"] >= 0


@pytest.mark.parametrize("name", [*JSON_ARRAYS, "snli-ve", "retrieval"])
def test_nan(name: str, refuse: Callable[..., None]) -> None:
    refuse(name, lambda text: text.replace("}", ', "p": NaN}', 1), "bare NaN")


@pytest.mark.parametrize("name", JSON_ARRAYS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: {"results": entries}, "must be one JSON array, got dict"),
        (lambda entries: {str(n): entry for n, entry in enumerate(entries)}, "got dict"),
        (lambda entries: "text", "must be one JSON array, got str"),
    ],
    ids=["results", "a dict", "a text"],
)
def test_no_array(
    name: str, change: Callable[[Any], Any], message: str, refuse: Callable[..., None]
) -> None:
    refuse(name, _entries(change), message)


@pytest.mark.parametrize("name", JSON_ARRAYS)
def test_json_lines(name: str, refuse: Callable[..., None]) -> None:
    def lines(text: str) -> str:
        return "".join(json.dumps(entry) + "\n" for entry in json.loads(text))

    refuse(name, lines, "looks like JSON lines")


@pytest.mark.parametrize("name", JSON_ARRAYS)
def test_a_byte_order_mark(name: str, refuse: Callable[..., None]) -> None:
    refuse(name, lambda text: "\ufeff" + text, "byte order mark")


def test_labels_of_snli_ve(refuse: Callable[..., None]) -> None:
    refuse("snli-ve", lambda text: text.replace('"neutral"', "1"), "line 1 .*of type str, got 1")
    refuse("snli-ve", lambda text: text.replace("neutral", "-"), "label must be one of")
    refuse("snli-ve", lambda text: text.replace("neutral", "Neutral"), "label must be one of")
    refuse("snli-ve", lambda text: text.replace("}\n", "}\n\n", 1), "line 2: blank lines")


@pytest.mark.parametrize("name", TASKS)
def test_a_file_cut_short(
    name: str, official: dict[str, Path], good: Callable[[str], Path]
) -> None:
    path = good(name)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=re.escape(str(path))):
        score(TASKS[name], [official[name]], path)


@pytest.mark.parametrize("name", TASKS)
def test_annotations_of_another_split(
    name: str,
    good: Callable[[str], Path],
    save: Callable[..., Path],
    make: type,
) -> None:
    """A file for dev is not scored against test."""
    other: Mapping[str, Any] = {
        "vqa": make.vqa({9000: ["yes"] * 10}),
        "gqa": {"0201": make.gqa("red")},
        "nlvr2": [make.nlvr2("test1-1-0-0")],
        "nlvr": [{**make.nlvr("1-0"), "split": "test"}],
        "snli-ve": [make.snli_ve("c.jpg#0r1n")],
        "retrieval": make.karpathy({"c.jpg": 1}),
        "refcoco": [{**make.grounding("c.jpg"), "sent_id": 9}],
        "table": [make.row("c.jpg", "yes")],
    }
    path = good(name)
    with pytest.raises(InputError, match=r"answers: .*missing .* not in the annotations"):
        score(TASKS[name], [save("other.json", other[name])], path)


def test_an_image_that_was_never_extracted(
    checkpoint: Callable[..., Path],
    save: Callable[..., Path],
    make: type,
    shards: Path,
    tmp_path: Path,
) -> None:
    """Official denominators count every question, so none is left out in silence."""
    data = save("nlvr2.json", [make.nlvr2("dev-1-0-0"), make.nlvr2("dev-77-0-0")])
    with pytest.raises(InputError, match=r"lacks 2 of 4 \(dev-77-0-img0, dev-77-0-img1\)"):
        evaluate(
            TASKS["nlvr2"],
            checkpoint("nlvr2"),
            [data],
            shards,
            tmp_path / "e",
            EvalOptions(split="dev"),
        )
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("name", "answers", "doubt"),
    [
        ("vqa", {1000: "Yes.", 2000: "2"}, "1 answers are not in the evaluator's normal form"),
        ("vqa", {1000: "", 2000: "2"}, "1 answers are empty"),
        ("gqa", {"01": "red.", "1": "blue"}, "1 answers have capitals, a final dot or outer"),
    ],
)
def test_what_is_accepted_but_hardly_meant(
    name: str,
    answers: dict[ExampleId, Answer],
    doubt: str,
    official: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "answers"
    TASKS[name].write(answers, path)
    score(TASKS[name], [official[name]], path)
    assert doubt in caplog.text


def test_doubts_about_many_answers(save: Callable[..., Path], make: type) -> None:
    people = {n * 1000: ["yes"] * 10 for n in range(1, 101)}
    examples = TASKS["vqa"].read([save("vqa.json", make.vqa(people))])
    (doubt,) = TASKS["vqa"].warnings(examples, dict.fromkeys(people, "no"))
    assert doubt == "100% of the answers are 'no'"
    types = {"structural": "verify", "semantic": "obj", "detailed": "existTrue"}
    judged = {"1": make.gqa("yes", types=types), "2": make.gqa("no", types=types)}
    examples = TASKS["gqa"].read([save("gqa.json", judged)])
    (doubt,) = TASKS["gqa"].warnings(examples, {"1": "red", "2": "no"})
    assert doubt.startswith("1 of 2 verify and logical questions get neither")


@pytest.mark.parametrize(
    ("name", "file", "warning"),
    [
        ("vqa", "v2_test-dev.json", "answers to all questions of test2015, which are 447793"),
        ("vqa", "v2_part_of_test.json", "answers to all questions of test2015"),
        ("vqa", "v2_val2014.json", ""),
        ("gqa", "test_all_questions.json", "all of submission_all_questions.json"),
        ("gqa", "submission_all_questions.json", ""),
    ],
)
def test_splits_that_a_server_does_not_take_alone(
    name: str,
    file: str,
    warning: str,
    save: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    question = {"question": "what?", "imageId": "n1", "isBalanced": True}
    asked = {"question_id": 1000, "image_id": 1, "question": "what?"}
    subsets = {"v2_test-dev.json": "test-dev2015", "v2_part_of_test.json": "test2015"}
    documents: dict[str, Any] = {
        "vqa": {"questions": [asked], "data_subtype": subsets.get(file, "val2014")},
        "gqa": {"01": question},
    }
    TASKS[name].read([save(file, documents[name])], split="test")
    assert warning in caplog.text
    assert bool(caplog.text) == bool(warning)
