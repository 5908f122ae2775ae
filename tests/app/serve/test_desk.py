"""The API of `semvlp serve`: what it answers, as its description says."""

import io
import re
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs semvlp[serve]")
pytest.importorskip("uvicorn", reason="needs semvlp[serve]")
from starlette.testclient import TestClient

import semvlp
from semvlp.app.serve.album import Album
from semvlp.app.serve.desk import Desk
from semvlp.app.serve.server import application, routes
from tests.app.conftest import Drawn
from tests.app.serve.api import OPENAPI, described, fits, photo


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
