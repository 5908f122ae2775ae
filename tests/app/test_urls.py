"""Photographs by their addresses: only where asked for, bounded, and never from elsewhere."""

import io
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from semvlp.addresses import http_allowed
from semvlp.app import eyes
from semvlp.app.assistant import Assistant, load
from semvlp.errors import ConfigError, InputError
from tests.app.conftest import Drawn

QUESTION = "what is it?"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Web(ThreadingHTTPServer):
    """Gives what it is told to give, and writes down what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, path: str, answer: Answer) -> str:
        self.answers[path] = answer
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.answers[self.path](self)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def gives(data: bytes, length: int | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


def sends_on(target: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass
    handler.close_connection = True


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def vlp(drawn: Drawn) -> Assistant:
    return load(drawn.checkpoint("vqa"), device="cpu", urls=True)


def test_a_photograph_by_its_address_is_the_photograph(
    drawn: Drawn, vlp: Assistant, web: Web
) -> None:
    path = drawn.photos[0]
    url = web.url("/a%20dog.png", gives(path.read_bytes()))
    (seen,) = vlp.ask(url, QUESTION).regions
    known = vlp.regions(path)
    assert seen.image_id == "a dog"
    assert np.array_equal(seen.boxes, known.boxes)
    assert np.array_equal(seen.features, known.features)
    on = web.url("/on", sends_on("/a%20dog.png"))
    assert vlp.ask([on, path], QUESTION)[0].answers == vlp.ask(path, QUESTION).answers


def test_addresses_are_taken_only_where_asked_for(drawn: Drawn, web: Web) -> None:
    url = web.url("/photo.png", gives(drawn.photos[0].read_bytes()))
    with pytest.raises(ConfigError, match=r"photo\.png: .*urls=True"):
        drawn.assistant("vqa").ask(url, QUESTION)
    assert not web.asked


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("file:///etc/passwd", InputError),
        ("ftp://127.0.0.1/photo.png", InputError),
        ("data:image/png;base64,AAAA", InputError),
        ("http://192.0.2.1/photo.png", ConfigError),
        ("/again", InputError),
    ],
)
def test_no_server_leads_elsewhere(
    vlp: Assistant, web: Web, target: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"http://"):
        vlp.ask(web.url("/again", sends_on(target)), QUESTION)


def test_plain_http_of_another_machine_is_refused_unless_allowed(
    vlp: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://192.0.2.1/photo.png"  # an address that nobody has
    with pytest.raises(ConfigError, match=r"^http://192\.0\.2\.1/photo\.png: .*http_allowed\(\)"):
        vlp.ask(url, QUESTION)
    monkeypatch.setattr(eyes, "MAX_SECONDS", 0.2)
    with http_allowed(), pytest.raises(InputError, match=r"photo\.png cannot be downloaded"):
        vlp.ask(url, QUESTION)


def test_it_may_be_neither_large_nor_slow(
    drawn: Drawn, vlp: Assistant, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = drawn.photos[0].read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(eyes, "MAX_BYTES", len(data) - 1)
        with pytest.raises(InputError, match=r"large\.png gives more than"):
            vlp.ask(web.url("/large.png", gives(data)), QUESTION)
    monkeypatch.setattr(eyes, "MAX_SECONDS", 0.3)
    with pytest.raises(InputError, match=r"slow cannot be .*not finished in 0\.3 seconds"):
        vlp.ask(web.url("/slow", drips), QUESTION)


def test_what_is_no_whole_photograph_is_told(vlp: Assistant, web: Web) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    for path, answer, reason in (
        ("/page", gives(b"<html>"), "not an image in one of the formats"),
        ("/cut", gives(buffer.getvalue()[:50], 100), "50 bytes came of the 100 announced"),
        ("/gone", lambda handler: handler.send_error(404), "404"),
        ("/bad", gives(b"", -1), ""),
    ):
        with pytest.raises(InputError, match=rf"{path}\b.*{reason}"):
            vlp.ask(web.url(path, answer), QUESTION)
    with pytest.raises(InputError, match="cannot be downloaded"):
        vlp.ask("https://[bad/photo.png", QUESTION)
