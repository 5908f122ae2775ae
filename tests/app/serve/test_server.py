"""`semvlp serve` as a command: what it opens, where it listens, how it ends."""

import json
import os
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs semvlp[serve]")
pytest.importorskip("uvicorn", reason="needs semvlp[serve]")
import httpx2
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from semvlp.app.serve import server
from semvlp.app.serve.desk import Desk
from semvlp.app.serve.server import application, serve
from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError
from tests.app.conftest import Drawn
from tests.app.serve.api import described, fits
from tests.app.serve.serving import SECONDS, serving


def options(**changes: Any) -> dict[str, Any]:
    given = {"shards": None, "images": None, "host": None, "port": 0, "device": "cpu"}
    rest = {"detector": None, "allow_other_regions": False, "announce": print}
    return {**given, **rest, **changes}


def test_a_checkpoint_of_pre_training_searches_with_its_matching_head(
    drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desks: list[Desk] = []

    def asked(served: Desk, token: str | None) -> None:
        desks.append(served)
        answer = TestClient(application(served), base_url="http://localhost").post(
            "/search", data={"text": "a circle", "top": "3"}
        )
        fits(answer.json(), described("/search", "post"))
        chances = [one["probability"] for one in answer.json()["photos"]]
        assert len(chances) == 3
        assert chances == sorted(chances, reverse=True)

    monkeypatch.setattr(server, "application", asked)
    monkeypatch.setattr(server, "_run", lambda *_: None)
    images = drawn.world.images("train")
    pretrained = str(drawn.root / "pretrain" / "last")
    # Rows are kept beside the shards that are searched.
    shards = shutil.copytree(drawn.root / "regions", tmp_path / "regions")
    serve([pretrained], **options(shards=str(shards), images=images))
    assert desks[0].assistants[pretrained].task == "vqa"


def test_a_port_that_is_taken_is_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} of 127.0.0.1.*--port"):
            serve(["no/such/checkpoint"], **options(port=port))


def test_missing_checkpoints_and_other_regions_are_refused(drawn: Drawn, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        serve([str(tmp_path / "none")], **options())
    other = shutil.copytree(drawn.checkpoint("vqa"), tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["region_profile"]["selection"]["max_regions"] = 7
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"selection\.max_regions was 7, now 9"):
        serve([str(other)], **options(shards=str(drawn.root / "regions")))


def test_a_missing_extra_is_one_sentence_that_names_it(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semvlp.commands.options.find_spec", lambda name: None)
    assert run(cli, "semvlp", ["serve"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'semvlp[serve]'" in error
    assert error.count("\n") == 1


def ask(drawn: Drawn, asked: httpx2.Client, token: str = "") -> None:
    """Put one question that is answered to a server, and others."""
    assert asked.get("about").status_code == (401 if token else 200)
    answer = asked.post(
        "ask",
        files={"photo": drawn.photos[0].read_bytes()},
        data={"text": "what is it?"},
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )
    assert answer.status_code == 200
    assert asked.post("ask", content=b"x", headers={"Origin": "http://e.org"}).status_code > 400
    huge = asked.post("ask", content=bytes(40 * 2**20))
    assert huge.status_code in (401, 413)


def test_the_program_serves_an_address_with_a_token_until_ctrl_c(drawn: Drawn) -> None:
    options = ["--device", "cpu", "--checkpoint", str(drawn.checkpoint("vqa")), "--json"]
    with serving([*options, "--host", "127.0.0.1"]) as served:
        assert len(served.token) >= 32
        ask(drawn, served.asked, served.token)
    assert served.code == 0
    assert json.loads(served.out) == {"url": served.base, "answered": 1}


def test_the_command_serves_this_machine_without_a_token_until_ctrl_c(
    drawn: Drawn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    serve_until_ctrl_c = server._run
    bases: list[str] = []

    def ask_beside(served: ASGIApp, listener: socket.socket) -> None:
        bases.append(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        with (
            httpx2.Client(base_url=bases[0], timeout=SECONDS, trust_env=False) as asked,
            ThreadPoolExecutor() as pool,
        ):
            questions = pool.submit(ask, drawn, asked)
            questions.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGINT))
            serve_until_ctrl_c(served, listener)
            questions.result()

    monkeypatch.setattr(server, "_run", ask_beside)
    command = ["serve", "--port", "0", "--device", "cpu", "--json"]
    assert run(cli, "semvlp", [*command, "--checkpoint", str(drawn.checkpoint("vqa"))]) == 0
    told = capsys.readouterr()
    assert f"Open {bases[0]}" in told.err
    assert "token" not in told.err
    assert json.loads(told.out) == {"url": bases[0], "answered": 1}
