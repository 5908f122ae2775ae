"""The API of `semvlp serve`: what it refuses, and that it goes on."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs semvlp[serve]")
pytest.importorskip("uvicorn", reason="needs semvlp[serve]")
from starlette.testclient import TestClient

from semvlp.app.serve.desk import Desk
from semvlp.app.serve.server import PAGE, application
from tests.app.conftest import Drawn
from tests.app.serve.api import EVIL, photo


def bomb() -> bytes:
    """Return a small file of more pixels than are ever decoded."""
    data = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(data, "PNG")
    return data.getvalue()


SVG = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{EVIL}</svg>'.encode()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("bomb.png", bomb(), "pixels"),
        ("drawing.svg", SVG, "not an image in one of the formats"),
        ("text.jpg", b"no photograph", "not an image"),
        ("empty.jpg", b"", "not an image"),
        ("cut.png", None, "damaged"),
    ],
)
def test_what_is_no_photograph_is_refused_and_the_server_goes_on(
    drawn: Drawn, client: TestClient, name: str, data: bytes | None, reason: str
) -> None:
    data = drawn.photos[0].read_bytes()[:-200] if data is None else data
    answer = client.post("/ask", files=[("photo", (name, data))], data={"text": "what is it?"})
    assert answer.status_code == 422
    assert name in answer.json()["error"]
    assert reason in answer.json()["error"]
    good = client.post("/ask", files=[photo(drawn.photos[0])], data={"text": "what is it?"})
    assert good.status_code == 200


@pytest.mark.parametrize("name", ["../../../tmp/evil.png", "/etc/passwd", "C:\\a.png", EVIL, ".."])
def test_the_name_of_an_upload_is_no_path(
    drawn: Drawn, client: TestClient, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [photo(drawn.photos[0], name)]
    assert client.post("/ask", files=files, data={"text": "what?"}).status_code == 200
    refused = client.post("/ask", files=[("photo", (name, b"x"))], data={"text": "what?"})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/json"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"text": ""}, 422, "must have words"),
        ({"text": "x" * 10_001}, 422, "got 10001"),
        ({"text": "x" * 1_000_000}, 400, "exceeded maximum size"),
        ({}, 422, "one text"),
        ({"text": ["a", "b"]}, 422, "one text"),
        ({"text": ["a"] * 65}, 422, "at most 64"),
        ({"text": ["a"] * 100}, 400, "Too many fields"),
        ({"text": "what?", "mode": "three"}, 400, "'three'"),
        ({"text": "what?", "checkpoint": "/etc"}, 400, "'/etc'"),
        ({"text": "what?", "top": "-1"}, 400, "top must be"),
        ({"text": "what?", "top": "1" * 9999}, 400, "top must be"),
        ({"text": "what?", "layer": "99"}, 400, "layer must be one of"),
        ({"text": "what?", "head": "²"}, 400, "head must be"),
        ({"text": "what?", "checkpoint": "nlvr2"}, 422, "takes 2 photographs"),
    ],
)
def test_fields_that_cannot_be_are_told(
    drawn: Drawn, client: TestClient, fields: dict[str, Any], status: int, reason: str
) -> None:
    answer = client.post("/ask", files=[photo(drawn.photos[0])], data=fields)
    assert (answer.status_code, answer.json().keys()) == (status, {"error"})
    assert reason in answer.json()["error"]


def test_a_text_of_ten_thousand_characters_is_answered(drawn: Drawn, client: TestClient) -> None:
    data = {"text": "\N{CYRILLIC SMALL LETTER A}" * 10_000}
    assert client.post("/ask", files=[photo(drawn.photos[0])], data=data).status_code == 200


def test_other_forms_and_other_photographs_are_told(drawn: Drawn, client: TestClient) -> None:
    data = {"text": "what?"}
    three = [photo(path) for path in drawn.photos[:3]]
    assert client.post("/ask", files=three, data=data).status_code == 400
    assert client.post("/ask", data=data).status_code == 422
    unknown = client.post("/ask", data={**data, "photo": "../../etc/passwd"})
    assert (unknown.status_code, "has no image" in unknown.json()["error"]) == (422, True)
    for content, kind in ((b"{", "application/json"), (b"x", "multipart/form-data"), (b"", "")):
        answer = client.post("/ask", content=content, headers={"Content-Type": kind})
        assert answer.status_code in (400, 422)
        assert answer.json()["error"]
    assert client.get("/ask").status_code == 404
    assert client.post("/match", data={**data, "photo": "x"}).status_code == 422


def test_texts_come_back_as_they_are(drawn: Drawn, client: TestClient) -> None:
    """They are JSON, which no browser takes for a page; the page makes texts of them."""
    answer = client.post("/ask", files=[photo(drawn.photos[0])], data={"text": EVIL})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["text"] == EVIL


def test_the_page_makes_no_markup_of_texts_and_names_nothing_external() -> None:
    sources = {path.name: path.read_text() for path in PAGE.iterdir()}
    assert {"index.html", "page.js", "page.css", "openapi.json"} <= set(sources)
    for name, text in sources.items():
        shown = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.", shown), name
    scripts = "".join(text for name, text in sources.items() if name.endswith(".js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", scripts)
    page = sources["index.html"]
    assert not re.search(r"<script(?! src=\"page\.js\" type=\"module\">)|\son\w+=|style=", page)


def test_an_error_of_ours_is_json_and_the_next_question_is_answered(
    drawn: Drawn, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = TestClient(
        application(desk), base_url="http://localhost", raise_server_exceptions=False
    )
    question: dict[str, Any] = {"files": [photo(drawn.photos[0])], "data": {"text": "what?"}}
    with monkeypatch.context() as broken:
        broken.setattr(desk.assistants["vqa"], "reply", lambda *_, **__: 1 / 0)
        answer = client.post("/ask", **question)
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.json()["error"]
    assert client.post("/ask", **question).status_code == 200
