"""Weights from a server and from the hub: whole or not at all, under a name that can be read."""

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from PIL import Image

from semvlp.addresses import http_allowed
from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError
from semvlp.extract.weights import download
from semvlp.extract.weights.checkpoint import read_weights
from semvlp.extract.weights.download import fetch


class Server(ThreadingHTTPServer):
    """Gives the same weights under every path, half of them as often as it is told."""

    def __init__(self, weights: bytes) -> None:
        self.weights, self.cut, self.announces = weights, 0, True
        self.asked: list[str] = []
        self.sends_on = ""
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.sends_on:
            self.send_response(302)
            self.send_header("Location", self.server.sends_on)
            self.end_headers()
            return
        data = self.server.weights
        self.send_response(200)
        if self.server.announces:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.server.cut:
            self.server.cut -= 1
            data = data[: len(data) // 2]
        self.wfile.write(data)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads are kept."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    torch.save({"model": {"a": torch.arange(1000.0)}}, tmp_path / "w.pth")
    server = Server((tmp_path / "w.pth").read_bytes())
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_that_is_cut_leaves_nothing_and_the_next_is_whole(
    server: Server, cache: Path
) -> None:
    server.cut, url = 1, f"{server.address}/m.pth"
    half, whole = len(server.weights) // 2, len(server.weights)
    with pytest.raises(InputError, match=rf"m\.pth cannot .*\({half} bytes came of the {whole} "):
        fetch(url)
    assert list(cache.iterdir()) == []
    path = fetch(url)
    assert path.read_bytes() == server.weights
    assert list(cache.iterdir()) == [path]


def test_a_server_that_announces_no_length_is_believed(server: Server, cache: Path) -> None:
    server.announces = False
    assert fetch(f"{server.address}/m.pth").read_bytes() == server.weights


@pytest.mark.parametrize("query", ["?download=true", "?dl=1", "?path=/other/file.txt"])
def test_a_query_is_no_part_of_the_name(server: Server, cache: Path, query: str) -> None:
    path = fetch(f"{server.address}/weights/m.pth{query}")
    assert path.name.endswith("-m.pth")
    assert list(read_weights(path)) == ["a"]
    assert server.asked == [f"/weights/m.pth{query}"]


def test_a_downloaded_file_is_asked_for_once(server: Server, cache: Path) -> None:
    first, again = (fetch(f"{server.address}/x/model.pth") for _ in range(2))
    other = fetch(f"{server.address}/y/model.pth")
    assert first == again != other
    assert server.asked == ["/x/model.pth", "/y/model.pth"]


def test_a_file_must_have_the_hash_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert fetch(f"{path}#sha256={sha256}") == path
    with pytest.raises(InputError, match=rf"its sha256 is {sha256}, not 00"):
        fetch(f"{path}#sha256=00")


PLAIN = "http://192.0.2.1/m.pth"  # an address that nobody has, so nothing answers


def test_plain_http_is_refused_but_for_this_machine(cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"^http://192\.0\.2\.1/m\.pth: .* say --allow-http$"):
        fetch(PLAIN)
    with pytest.raises(ConfigError, match="--allow-http"):
        fetch("http://localhost.example.org/m.pth")


def test_a_server_may_not_send_us_on_to_plain_http(server: Server, cache: Path) -> None:
    server.sends_on = PLAIN
    with pytest.raises(ConfigError, match=r"^http://192\.0\.2\.1/m\.pth: .* say --allow-http$"):
        fetch(f"{server.address}/m.pth")
    assert list(cache.iterdir()) == []


def test_plain_http_is_taken_with_a_hash_or_the_option(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_download", lambda url, path, known: path.write_bytes(b"w"))
    sha256 = hashlib.sha256(b"w").hexdigest()
    assert fetch(f"{PLAIN}#sha256={sha256}").read_bytes() == b"w"
    with pytest.raises(ConfigError, match="--allow-http"):
        fetch(f"{PLAIN}#sha256={sha256[:8]}")
    with http_allowed():
        assert fetch(PLAIN).read_bytes() == b"w"
    with pytest.raises(ConfigError, match="--allow-http"):
        fetch(PLAIN)


def test_a_download_with_another_hash_is_not_kept(server: Server, cache: Path) -> None:
    with pytest.raises(InputError, match=r"m\.pth: its sha256 is [0-9a-f]{64}, not 0{64}; delete"):
        fetch(f"{server.address}/m.pth#sha256={'0' * 64}")
    assert list(cache.iterdir()) == []


def test_files_of_pytorch_are_checked_by_the_hash_in_their_names(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_download", lambda url, path, known: path.write_bytes(b"w"))
    digits = hashlib.sha256(b"w").hexdigest()[:8]
    right, wrong = (
        f"https://download.pytorch.org/models/resnet50-{hexes}.pth" for hexes in (digits, "0" * 8)
    )
    assert fetch(right).read_bytes() == b"w"
    with pytest.raises(InputError, match=r"resnet50-00000000\.pth: its sha256 is "):
        fetch(wrong)
    # Another server's files may have a date there.
    assert fetch("https://example.org/model-20210101.pth").read_bytes() == b"w"


@pytest.mark.parametrize(
    "command",
    [
        ("extract", "{image}", "--detector", "coco-r50-c4", "--weights", PLAIN),
        ("extract", "{image}", "--detector", "butd"),
        ("pretrain", "http://192.0.2.1/shards"),
        ("pretrain", "simplecache::http://192.0.2.1/shards"),
    ],
)
def test_a_command_names_the_option_for_plain_http(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    def gone(*asked: object, **known: object) -> None:
        raise InputError("it is gone")

    # The other sources of bottom-up attention.
    monkeypatch.setattr(download, "_download", gone)
    monkeypatch.setattr(download, "_from_hub", gone)
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    arguments = [part.format(image=image) for part in command]
    assert run(cli, "semvlp", [*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "or say --allow-http" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_option_for_plain_http_holds_for_one_command(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "_download", lambda url, path, known: path.write_bytes(b"w"))
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    command = ["extract", str(image), "--detector", "coco-r50-c4", "--weights", PLAIN]
    command += ["--out", str(tmp_path / "out")]
    assert run(cli, "semvlp", [*command, "--allow-http"]) == 3
    assert "m.pth: damaged" in capsys.readouterr().err
    assert run(cli, "semvlp", command) == 2


def test_a_hub_address_needs_owner_and_name() -> None:
    with pytest.raises(InputError, match="hf:OWNER/NAME"):
        fetch("hf:model")


def test_a_hub_address_names_repository_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: f"/{name}|{file}")
    assert str(fetch("hf:me/cups")) == "/me/cups|detector.safetensors"
    assert str(fetch("hf:me/cups/old/w.pth")) == "/me/cups|old/w.pth"


@pytest.mark.parametrize("missing", [EntryNotFoundError("404"), LocalEntryNotFoundError("offline")])
def test_a_repository_without_a_detector_of_ours_is_asked_for_its_own_weights(
    monkeypatch: pytest.MonkeyPatch, missing: Exception
) -> None:
    def download(name: str, file: str) -> str:
        if file not in there:
            raise missing
        return f"/{name}|{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    there = ["pytorch_model.bin"]
    assert str(fetch("hf:unc-nlp/frcnn")) == "/unc-nlp/frcnn|pytorch_model.bin"
    there.append("detector.safetensors")
    assert str(fetch("hf:unc-nlp/frcnn")) == "/unc-nlp/frcnn|detector.safetensors"


def test_a_download_is_synced_before_it_has_its_name(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_disk(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_disk)
        cache.mkdir()
        with pytest.raises(InputError, match="Input/output error"):
            fetch(f"{server.address}/x.bin")
    assert not list(cache.iterdir())
    assert fetch(f"{server.address}/x.bin").read_bytes() == server.weights
