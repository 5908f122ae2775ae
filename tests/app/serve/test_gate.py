"""Who may ask the server: its own page, on this machine, or whoever has the token."""

import pytest

pytest.importorskip("starlette", reason="needs semvlp[serve]")
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from semvlp.app.serve.gate import COOKIE, HEADERS, MAX_BYTES, Gate

TOKEN = "an-unguessable-token"


def client(token: str | None = None, host: str = "127.0.0.1:8765") -> TestClient:
    return TestClient(Gate(PlainTextResponse("inside"), token), base_url=f"http://{host}")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8765", "localhost:1", "LOCALHOST", "[::1]", "[::1]:8765"]
)
def test_loopback_names_are_served(host: str) -> None:
    answer = client().get("/", headers={"Host": host})
    assert (answer.status_code, answer.text) == (200, "inside")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", "127.0.0.1@evil", ""],
)
def test_names_that_were_made_to_mean_this_machine_are_not(host: str) -> None:
    """DNS rebinding: the address is ours, the name is not."""
    answer = client().get("/about", headers={"Host": host})
    assert answer.status_code == 403
    assert "127.0.0.1" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://127.0.0.1:8765.evil.example"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_other_sites_are_refused(headers: dict[str, str], method: str) -> None:
    answer = client().request(method, "/ask", headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_the_page_itself_a_program_and_a_link_are_let_in(headers: dict[str, str]) -> None:
    assert client().post("/ask", content=b"x", headers=headers).status_code == 200


def test_every_answer_forbids_what_is_external() -> None:
    for answer in (client().get("/"), client().get("/", headers={"Host": "evil.example"})):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Cookie": f"{COOKIE}=wrong"},
    ],
)
def test_without_the_token_nothing_is_served(headers: dict[str, str]) -> None:
    asked = client(TOKEN, "0.0.0.0:8765")
    for path in ("/", "/about", "/?token=", "/?token=wr%C3%B6ng", "/?TOKEN=" + TOKEN):
        answer = asked.get(path, headers=headers)
        assert answer.status_code == 401, path
        assert TOKEN not in answer.text
        assert "set-cookie" not in answer.headers


def test_the_address_with_the_token_gives_the_page_a_cookie() -> None:
    asked = client(TOKEN, "photos.local:8765")
    answer = asked.get("/", params={"token": TOKEN})
    assert answer.status_code == 200
    assert answer.headers["set-cookie"] == f"{COOKIE}={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
    assert asked.get("/about").status_code == 200


def test_a_program_sends_the_token_in_a_header() -> None:
    answer = client(TOKEN, "10.0.0.5").get("/", headers={"Authorization": f"bearer {TOKEN}"})
    assert answer.status_code == 200


def test_the_token_does_not_let_other_sites_in() -> None:
    headers = {"Cookie": f"{COOKIE}={TOKEN}", "Origin": "https://evil.example"}
    assert client(TOKEN).post("/ask", content=b"x", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Length": str(MAX_BYTES)}, 200),
        ({"Content-Length": str(MAX_BYTES + 1)}, 413),
        ({"Content-Length": "9" * 30}, 411),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": "5", "Transfer-Encoding": "chunked"}, 411),
    ],
)
def test_what_is_too_long_is_not_read(headers: dict[str, str], status: int) -> None:
    answer = client().post("/ask", content=b"12345", headers=headers)
    assert answer.status_code == status
    if status == 413:
        assert "32 MiB" in answer.json()["error"]
