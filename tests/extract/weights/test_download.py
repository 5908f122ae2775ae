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

from semvlp.errors import InputError
from semvlp.extract.weights.checkpoint import read_weights
from semvlp.extract.weights.download import fetch


class Server(ThreadingHTTPServer):
    """Gives the same weights under every path, half of them as often as it is told."""

    def __init__(self, weights: bytes) -> None:
        self.weights, self.cut, self.announces = weights, 0, True
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
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
