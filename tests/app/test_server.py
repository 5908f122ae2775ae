"""`semvlp serve` as a command: what it opens, where it listens, how it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs semvlp[serve]")
pytest.importorskip("uvicorn", reason="needs semvlp[serve]")
import httpx2
from starlette.testclient import TestClient

from semvlp.app import server
from semvlp.app.desk import Desk
from semvlp.app.server import application, serve
from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError
from tests.app.conftest import Drawn
from tests.app.test_desk import described, fits


def options(**changes: Any) -> dict[str, Any]:
    given = {"shards": None, "images": None, "host": None, "port": 0, "device": "cpu"}
    rest = {"detector": None, "allow_other_regions": False, "announce": print}
    return {**given, **rest, **changes}


def test_a_checkpoint_of_pre_training_searches_with_its_matching_head(
    drawn: Drawn, monkeypatch: pytest.MonkeyPatch
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
    serve([pretrained], **options(shards=str(drawn.root / "regions"), images=images))
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


@pytest.mark.parametrize("host", [None, "127.0.0.1"])
def test_the_command_serves_until_ctrl_c(drawn: Drawn, host: str | None) -> None:
    command = [sys.executable, "-m", "semvlp.cli", "serve", "--port", "0", "--device", "cpu"]
    command += ["--checkpoint", str(drawn.checkpoint("vqa")), "--json"]
    command += ["--host", host] if host else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("Open "))
        address = line.split()[1]
        base, _, token = address.partition("?token=")
        assert bool(token) == bool(host)
        assert not token or len(token) >= 32
        asked = httpx2.Client(base_url=base, timeout=60, trust_env=False)
        deadline = time.monotonic() + 60
        while True:
            try:
                first = asked.get("about")
                break
            except httpx2.ConnectError:
                assert time.monotonic() < deadline
        assert first.status_code == (401 if host else 200)
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
        asked.close()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out) == {"url": base, "answered": 1}
