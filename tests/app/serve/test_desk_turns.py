"""The API of `semvlp serve` for several browsers: turns, closed tabs, what is remembered."""

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs semvlp[serve]")
pytest.importorskip("uvicorn", reason="needs semvlp[serve]")
from starlette.testclient import TestClient

from semvlp.app.serve.album import KEPT, Given, GivenRegions
from semvlp.app.serve.desk import Desk
from semvlp.app.serve.server import application
from tests.app.conftest import Drawn


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
