"""`semvlp ask`: one reply or several, for people and for programs, and its page."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from tests.app.conftest import Drawn

Ask = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """(words) -> exit code, the object or the text on stdout, and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, as_json: bool = True) -> tuple[int, Any, str]:
        options = ["--device", "cpu", *["--json"] * as_json]
        code = run(cli, "semvlp", ["ask", *map(str, words), *options])
        streams = capsys.readouterr()
        return code, json.loads(streams.out) if as_json else streams.out, streams.err

    return call


def test_one_question_is_one_object(ask: Ask, drawn: Drawn) -> None:
    start = ("--checkpoint", drawn.checkpoint("vqa"), "--top", 1, "--mode", "two")
    code, reply, _ = ask(drawn.photos[0], "what is it?", *start)
    assert code == 0
    assert reply["mode"] == "two"
    assert 1 <= reply["regions"] <= 9
    (answer,) = reply["answers"]
    assert answer["answer"] in ("yes", "no")
    assert 0.5 < answer["probability"] < 1


def test_several_are_a_list_in_order(ask: Ask, drawn: Drawn, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in drawn.photos[:2]:
        shutil.copy(photo, folder)
    start = ("--checkpoint", drawn.checkpoint("vqa"))
    code, found, _ = ask(folder, "what is it?", "is it red?", *start)
    assert code == 0
    assert [(Path(one["photo"]).name, one["text"]) for one in found["results"]] == [
        (photo.name, text) for photo in drawn.photos[:2] for text in ("what is it?", "is it red?")
    ]


def test_two_photographs_go_to_a_checkpoint_of_pairs(ask: Ask, drawn: Drawn) -> None:
    start = ("--checkpoint", drawn.checkpoint("nlvr2"))
    code, reply, _ = ask(*drawn.photos[:2], "both images show a circle", *start)
    assert code == 0
    assert len(reply["photo"]) == 2
    assert {answer["answer"] for answer in reply["answers"]} == {"True", "False"}
    code, error, _ = ask(drawn.photos[0], "there is a circle", *start)
    assert (code, "takes 2 photographs" in error["error"]) == (3, True)


def test_people_see_bars(ask: Ask, drawn: Drawn) -> None:
    start = ("--checkpoint", drawn.checkpoint("snli-ve"))
    code, text, _ = ask(drawn.photos[0], "there is a circle", *start, as_json=False)
    assert code == 0
    first, *lines = text.splitlines()
    assert first.endswith(f"{drawn.photos[0].name}: there is a circle")
    shares = [re.fullmatch(r"  \w+ +([\d.]+) % (█*)", line) for line in lines]
    assert len(shares) == 3
    for share in shares:
        assert share is not None
        assert abs(len(share[2]) - 0.3 * float(share[1])) <= 0.6


def test_the_page_runs_nothing_that_came_in_as_text(ask: Ask, drawn: Drawn, tmp_path: Path) -> None:
    evil = tmp_path / "<script>alert(1)<" / "a.png"
    evil.parent.mkdir(parents=True)
    shutil.copy(drawn.photos[0], evil)
    start = ("--checkpoint", drawn.checkpoint("vqa"), "--page", "page.html")
    code, reply, _ = ask(evil, "<script>alert(2)</script>?", *start)
    assert (code, reply["page"]) == (0, "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(2)" in page
    assert page.count("<rect") == reply["regions"]
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "one file, nothing from elsewhere"


def test_a_page_of_somebody_else_is_not_replaced(ask: Ask, drawn: Drawn, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("somebody's")
    start = ("--checkpoint", drawn.checkpoint("vqa"), "--page", "page.html")
    code, error, _ = ask(drawn.photos[0], "what is it?", *start)
    assert (code, "no page of ours" in error["error"]) == (2, True)
    assert (tmp_path / "page.html").read_text() == "somebody's"


def test_without_a_checkpoint_it_is_said_how_to_get_one(ask: Ask, drawn: Drawn) -> None:
    code, error, _ = ask(drawn.photos[0], "what is it?")
    assert code == 2
    assert "semvlp demo" in error["error"]


def test_the_demo_is_asked_where_nothing_is_named(ask: Ask, drawn: Drawn, tmp_path: Path) -> None:
    (tmp_path / "runs" / "demo" / "finetune-vqa").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "finetune-vqa" / "best").symlink_to(drawn.checkpoint("vqa"))
    code, reply, _ = ask(drawn.photos[0], "what is it?")
    assert code == 0
    assert {answer["answer"] for answer in reply["answers"]} == {"yes", "no"}


@pytest.mark.parametrize(
    "words", [("what?",), ("no.png", "what?"), ("PHOTO",), ("PHOTO", ""), ("PHOTO", "x" * 10_001)]
)
def test_what_is_missing_is_told(ask: Ask, drawn: Drawn, words: tuple[str, ...]) -> None:
    given = [str(drawn.photos[0]) if word == "PHOTO" else word for word in words]
    code, error, _ = ask(*given, "--checkpoint", drawn.checkpoint("vqa"))
    assert code == (3 if words[-1] in ("", "x" * 10_001) else 2)
    assert "photograph" in error["error"] or "a text must have" in error["error"]
