"""The API of `semvlp serve`: what it answers, what it refuses, and that it goes on after either."""

import asyncio
import io
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs semvlp[serve]")
pytest.importorskip("uvicorn", reason="needs semvlp[serve]")
from starlette.testclient import TestClient

import semvlp
from semvlp.app.album import KEPT, Album, Given, GivenRegions
from semvlp.app.desk import Desk
from semvlp.app.server import PAGE, application, routes
from tests.app.conftest import Drawn

EVIL = "<script>alert(1)</script>"
OPENAPI = json.loads((PAGE / "openapi.json").read_text())


class Hit(NamedTuple):
    id: str
    file: str | None
    probability: float


class Finder:
    """Finds the first photographs, whatever the text."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids

    def search(self, text: str, *, top: int) -> list[Hit]:
        return [Hit(one, None, 0.5) for one in self.ids[:top]]


@pytest.fixture(scope="module")
def album(drawn: Drawn) -> Iterator[Album]:
    album = Album.opened(drawn.root / "regions", drawn.world.images("train"))
    yield album
    album.close()


@pytest.fixture(scope="module")
def desk(drawn: Drawn, album: Album) -> Desk:
    assistants = {task: drawn.assistant(task) for task in ("vqa", "nlvr2", "retrieval")}
    return Desk(assistants, album, Finder(list(album.store.image_ids)))


@pytest.fixture(scope="module")
def client(desk: Desk) -> TestClient:
    return TestClient(application(desk), base_url="http://127.0.0.1:8765")


def photo(path: Path, name: str = "a.png") -> tuple[str, tuple[str, bytes]]:
    return "photo", (name, path.read_bytes())


def fits(value: Any, schema: dict[str, Any]) -> None:
    """Check a value against the part of JSON schema that our description is written in."""
    if "$ref" in schema:
        return fits(value, OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert any(isinstance(value, kinds[name]) for name in named), (value, schema)
    assert schema.get("minimum", value) <= value if "minimum" in schema else True
    assert value <= schema["maximum"] if "maximum" in schema else True
    assert value in schema.get("enum", [value])
    if isinstance(value, dict):
        assert set(value) == set(schema["required"]) == set(schema["properties"])
        for name, member in value.items():
            fits(member, schema["properties"][name])
    for member in value if isinstance(value, list) else ():
        fits(member, schema["items"])


def described(path: str, method: str) -> dict[str, Any]:
    answer = OPENAPI["paths"][path][method]["responses"]["200"]
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return schema


def test_the_description_has_the_routes_that_there_are(desk: Desk, client: TestClient) -> None:
    assert client.get("/openapi.json").json() == OPENAPI
    assert OPENAPI["info"]["version"] == semvlp.__version__
    there = {
        (route.path, method.lower())
        for route in routes(desk)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert there == {(path, name) for path, item in OPENAPI["paths"].items() for name in item}


def test_it_tells_what_there_is(client: TestClient, album: Album) -> None:
    about = client.get("/about").json()
    fits(about, described("/about", "get"))
    vqa, nlvr2, retrieval = about["checkpoints"]
    assert (vqa["task"], vqa["text"], vqa["photos"]) == ("vqa", "question", 1)
    assert (nlvr2["text"], nlvr2["photos"]) == ("statement", 2)
    assert retrieval["text"] == "captions"
    assert (about["photos"], about["search"]) == (len(album.store), True)


@pytest.mark.parametrize("mode", ["single", "two", "both"])
def test_a_question_gets_the_answers_of_the_checkpoint(
    drawn: Drawn, client: TestClient, mode: Any
) -> None:
    path, text = drawn.photos[0], "what is it?"
    asked = client.post("/ask", files=[photo(path)], data={"text": text, "mode": mode, "top": "2"})
    reply = asked.json()
    fits(reply, described("/ask", "post"))
    expected = drawn.assistant("vqa", mode=mode).ask(path, text, top=2)
    assert reply["mode"] == mode
    assert [one["answer"] for one in reply["answers"]] == [one.answer for one in expected.answers]
    for one, other in zip(reply["answers"], expected.answers, strict=True):
        assert one["probability"] == pytest.approx(other.probability, abs=1e-6)
    assert [word["word"] for word in reply["words"]] == ["what", "is", "it", "?"]
    (seen,), (between,) = reply["photos"], expected.attention
    assert len(seen["regions"]) == len(expected.regions[0])
    assert [region["looked_at"] for region in seen["regions"]] == pytest.approx(
        between.to_regions[0].tolist(), abs=1e-4
    )
    for region, box in zip(seen["regions"], expected.regions[0].boxes, strict=True):
        assert region["box"] == pytest.approx(box.tolist(), abs=0.06)
        assert re.fullmatch(r"\w+ \w+", region["label"])


def test_layers_and_heads_are_parts_of_the_mean(drawn: Drawn, client: TestClient) -> None:
    vqa = client.get("/about").json()["checkpoints"][0]

    def attention(**chosen: Any) -> list[float]:
        data = {"text": "what is it?", "mode": "two", **{k: str(v) for k, v in chosen.items()}}
        words = client.post("/ask", files=[photo(drawn.photos[0])], data=data).json()["words"]
        return [share for word in words for share in word["regions"][0]]

    heads = range(1, vqa["heads"] + 1)
    parts = [attention(layer=layer, head=head) for layer in vqa["layers"] for head in heads]
    mean = [sum(part) / len(parts) for part in zip(*parts, strict=True)]
    assert mean == pytest.approx(attention(), abs=2e-4)
    assert parts[0] != parts[1]


def test_two_photographs_go_to_a_checkpoint_of_pairs(drawn: Drawn, client: TestClient) -> None:
    left, right = drawn.photos[:2]
    data = {"text": "both images show a circle", "checkpoint": "nlvr2"}
    reply = client.post("/ask", files=[photo(left), photo(right)], data=data).json()
    fits(reply, described("/ask", "post"))
    assert {one["answer"] for one in reply["answers"]} == {"True", "False"}
    expected = drawn.assistant("nlvr2").reply([left, right], data["text"])
    assert reply["answers"][0]["probability"] == pytest.approx(expected.answers[0].probability)
    assert [len(word["regions"]) for word in reply["words"]] == [2] * len(reply["words"])


def test_captions_are_matched_in_their_order(drawn: Drawn, client: TestClient) -> None:
    texts = ["a circle", "two red squares"]
    data = {"text": texts, "checkpoint": "retrieval"}
    matched = client.post("/match", files=[photo(drawn.photos[0])], data=data).json()
    fits(matched, described("/match", "post"))
    expected = drawn.assistant("retrieval").match(drawn.photos[0], texts)
    assert [one["text"] for one in matched["matches"]] == texts
    assert [one["probability"] for one in matched["matches"]] == pytest.approx(expected)


def test_a_photograph_of_the_store_is_asked_by_its_id(
    drawn: Drawn, client: TestClient, album: Album
) -> None:
    name = drawn.photos[3].stem
    by_id = client.post("/ask", data={"photo": name, "text": "what is it?"}).json()
    sent = client.post("/ask", files=[photo(drawn.photos[3])], data={"text": "what is it?"}).json()
    assert by_id["photos"] == sent["photos"]
    assert by_id["answers"][0]["probability"] == pytest.approx(sent["answers"][0]["probability"])


def test_the_store_is_listed_and_shown(drawn: Drawn, client: TestClient, album: Album) -> None:
    listed = client.get("/photos", params={"start": 2, "count": 3}).json()
    fits(listed, described("/photos", "get"))
    assert [one["id"] for one in listed["photos"]] == list(album.store.image_ids[2:5])
    first = listed["photos"][0]
    assert first["picture"]
    for size, width in (("small", 240), ("large", 1024)):
        answer = client.get(f"/photos/{first['id']}", params={"size": size})
        assert answer.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.width <= width


def test_the_store_is_searched(client: TestClient, album: Album) -> None:
    hits = client.post("/search", data={"text": "a circle", "top": "2"}).json()
    fits(hits, described("/search", "post"))
    assert [one["id"] for one in hits["photos"]] == list(album.store.image_ids[:2])


@pytest.mark.parametrize(
    "path",
    [
        "/photos/..%2f..%2fetc%2fpasswd",
        "/photos/%2fetc%2fpasswd",
        "/photos/nobody",
        "/../server.py",
        "/%2e%2e/server.py",
        "/..%2fserver.py",
        "//etc/passwd",
        "/page.py",
    ],
)
def test_no_other_file_is_ever_sent(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert answer.json()["error"]


def test_without_its_files_a_store_shows_regions_alone(drawn: Drawn) -> None:
    album = Album.opened(drawn.root / "regions", None)
    client = TestClient(application(Desk({}, album)), base_url="http://localhost")
    listed = client.get("/photos").json()["photos"]
    assert not any(one["picture"] for one in listed)
    assert client.get(f"/photos/{listed[0]['id']}").status_code == 422
    album.close()


# ---- bad input


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
        ({"text": ""}, 422, "1 to 10000 characters"),
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


def test_the_regions_of_many_photographs_are_not_all_kept(drawn: Drawn) -> None:
    class Counting:
        calls = 0

        def regions(self, pixels: Any) -> Any:
            self.calls += 1
            return pixels

    assistant, given = Counting(), GivenRegions()

    def photograph(grey: int) -> Given:
        data = io.BytesIO()
        Image.new("L", (16, 16), grey).save(data, "PNG")
        return Given("a.png", data.getvalue())

    photographs = [photograph(grey) for grey in range(KEPT + 1)]
    for one in (*photographs, *photographs[1:]):
        given(assistant, one)  # type: ignore[arg-type]
    assert assistant.calls == KEPT + 1
    given(assistant, photographs[0])  # type: ignore[arg-type]
    assert assistant.calls == KEPT + 2


def test_two_browsers_at_once_have_the_network_in_turn(
    drawn: Drawn, desk: Desk, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    vqa = desk.assistants["vqa"]
    reply, threads, within, most = vqa.reply, set(), 0, 0

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal within, most
        threads.add(threading.get_ident())
        within += 1
        most = max(most, within)
        try:
            return reply(*args, **kwargs)
        finally:
            within -= 1

    monkeypatch.setattr(vqa, "reply", watched)
    name = drawn.photos[0].stem

    def ask(number: int) -> list[Any]:
        data = {"photo": name, "text": f"is it {number}?"}
        return [client.post("/ask", data=data).json()["text"], data["text"]]

    with ThreadPoolExecutor(4) as browsers:
        assert all(got == asked for got, asked in browsers.map(ask, range(12)))
    assert (len(threads), most) == (1, 1)


def test_a_question_of_a_closed_tab_is_not_answered(
    drawn: Drawn, desk: Desk, client: TestClient
) -> None:
    """The connection ends while the form is sent, and while its question waits for its turn."""
    before, body = desk.answered, b"photo=x&text=what"
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Host": "localhost"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/ask",
        "query_string": b"",
        "headers": [
            *((k.lower().encode(), v.encode()) for k, v in headers.items()),
            (b"content-length", b"%d" % len(body)),
        ],
    }
    for whole in (False, True):
        messages = [
            {"type": "http.request", "body": body, "more_body": not whole},
            {"type": "http.disconnect"},
        ]
        sent = []

        async def receive(left: list[Any] = messages) -> Any:
            return left.pop(0) if len(left) > 1 else left[0]

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        asyncio.run(application(desk)(dict(scope), receive, send))  # type: ignore[arg-type]
        assert sent[0]["status"] == 400
    assert desk.answered == before
    assert client.get("/about").status_code == 200
