"""Files given to the wrong task, damaged files, gzipped files."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import InputError
from semvlp.eval.task import Answer, Rank, Referent
from semvlp.eval.tasks.table import TASKS

NAMES = list(TASKS)


@pytest.mark.parametrize("given", NAMES)
@pytest.mark.parametrize("wanted", NAMES)
def test_a_file_of_another_task_is_named(
    wanted: str, given: str, official: dict[str, Path]
) -> None:
    path = official[given]
    if wanted == given:
        assert TASKS[wanted].read([path], split="test")
        return
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}.*task {given}"):
        TASKS[wanted].read([path], split="test")


@pytest.mark.parametrize("name", NAMES)
def test_gzip_is_read(name: str, official: dict[str, Path], tmp_path: Path) -> None:
    plain = official[name]
    packed = tmp_path / f"{plain.name}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    task = TASKS[name]
    assert task.read([packed], split="test") == task.read([plain], split="test")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[1]", b"{}", b"null"])
def test_damaged_files(name: str, damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    path.write_bytes(damage)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}"):
        TASKS[name].read([path], split="test")


@pytest.mark.parametrize("name", NAMES)
def test_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dev\.json: cannot be read"):
        TASKS[name].read([tmp_path / "dev.json"])


@pytest.mark.parametrize("name", NAMES)
def test_every_id_once(name: str, official: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="every id must be unique"):
        TASKS[name].read([official[name], official[name]], split="test")


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("nlvr2", {"identifier": "dev-1-0", "sentence": "x"}, "split-set-pair-sentence"),
        ("nlvr2", {"identifier": "dev-1-0-1", "sentence": 3}, "'sentence' must be a string, got 3"),
        ("nlvr2", {"identifier": "dev-1-0-1", "sentence": "x", "label": "true"}, "'label' must be"),
        ("nlvr", {"identifier": "dev-3-0", "sentence": "x"}, "must be n-m"),
        ("nlvr", {"identifier": "3-0"}, "'sentence' must be a string, got nothing"),
        ("snli-ve", {"pairID": "c", "sentence2": "x", "gold_label": "yes"}, "'gold_label' must be"),
        ("snli-ve", {"pairID": "c", "sentence2": "x"}, "must name its image"),
    ],
)
def test_a_damaged_line_is_named(
    name: str, line: dict[str, object], message: str, official: dict[str, Path]
) -> None:
    path = official[name]
    number = len(path.read_text().splitlines()) + 1
    with path.open("a") as file:
        file.write(f"{line}\n".replace("'", '"'))
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}:{number}: .*{message}"):
        TASKS[name].read([path])


def test_line_separators_inside_a_text_do_not_end_a_line(
    save: Callable[..., Path], make: type
) -> None:
    path = save("dev.json", [])
    path.write_text('{"identifier": "1-0", "sentence": "a\u2028b", "label": "true"}\n')
    assert TASKS["nlvr"].read([path])[0].text == "a\u2028b"


JUNK: list[Any] = [None, True, -1.5, "x", [[]], {"a": 1}]


@pytest.mark.parametrize("name", NAMES)
def test_any_wrong_value_is_an_input_error_or_harmless(
    name: str, official: dict[str, Path]
) -> None:
    """The values of a good file are replaced one by one, by every kind of junk."""
    path = official[name]
    lines = path.read_text().splitlines()
    document = json.loads(lines[0])
    refusals = []
    for place in _places(document):
        for junk in JUNK:
            damaged = json.dumps(_replaced(document, place, junk))
            path.write_text("\n".join([damaged, *lines[1:]]))
            try:
                _read_and_score(name, path)
            except InputError as error:
                refusals.append(str(error))
    assert len(refusals) > 15
    assert all(message.startswith((str(path), "GQA scores balanced")) for message in refusals)


def _read_and_score(name: str, path: Path) -> None:
    task = TASKS[name]
    examples = task.read([path], split="test")
    if all(example.target for example in examples):
        answer: Answer = Rank(1, 0) if name == "retrieval" else "x"
        answers = dict.fromkeys(task.ids(examples), answer)
        if name == "refcoco":
            answers = {e.example_id: Referent(e.meta["ref_id"], (0, 0, 9, 9)) for e in examples}
        assert task.score(examples, answers)


def _places(value: Any) -> Iterator[tuple[Any, ...]]:
    """Paths to the members of a JSON value; of a list to the first two."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2])
    for key, member in items:
        yield (key,)
        if isinstance(member, dict | list):
            yield from ((key, *rest) for rest in _places(member))


def _replaced(value: Any, place: tuple[Any, ...], junk: Any) -> Any:
    if not place:
        return junk
    copy = value.copy()
    copy[place[0]] = _replaced(copy[place[0]], place[1:], junk)
    return copy
