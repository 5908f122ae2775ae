"""Remote data sets are copied whole, checked, and kept by content; a real server is asked."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.shards import remote
from semvlp.shards.manifest import Manifest
from semvlp.shards.store import open_store


class Server(ThreadingHTTPServer):
    """Serves a directory; counts what is asked for, and cuts the answers named in `cut` short."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.server.asked[name] += 1
        if self.server.cut[name] > 0:
            self.server.cut[name] -= 1
            data = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Path]]:
    """A server of `tmp_path/www` and that folder; the cache is `tmp_path/cache`."""
    folder = tmp_path / "www"
    folder.mkdir()
    monkeypatch.setenv(remote.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "BACKOFF_SECONDS", 0.01)
    with Server(folder) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server, folder
        server.shutdown()
        thread.join()


def same_samples(first: Path, second: Path) -> bool:
    with open_store(first) as one, open_store(second) as two:
        return len(one) == len(two) > 0 and all(
            bytes(one.members(index)[1]) == bytes(two.members(index)[1])
            for index in range(len(one))
        )


@pytest.mark.parametrize("path", ["shards", "/data/x"])
def test_a_local_path_stays(path: str) -> None:
    assert remote.localize(path) == Path(path)


@pytest.mark.parametrize("format", ["tar", "lmdb"])
def test_a_data_set_is_copied_and_opens(
    served: tuple[Server, Path], write_dataset: Callable[..., Manifest], format: str
) -> None:
    server, folder = served
    write_dataset(folder / "set", format=format)
    local = remote.localize(f"{server.address}/set/")
    assert same_samples(local, folder / "set")
    assert not list(local.parent.rglob("*.part"))


def test_cut_answers_are_asked_for_again_and_finished_files_kept(
    served: tuple[Server, Path], write_dataset: Callable[..., Manifest]
) -> None:
    server, folder = served
    write_dataset(folder / "set")
    server.cut.update({"shard-000001.tar": 1, "index.safetensors": 1, "manifest.json": 1})
    local = remote.localize(f"{server.address}/set")
    assert same_samples(local, folder / "set")
    assert server.asked["shard-000001.tar"] == 2
    assert server.asked["shard-000000.tar"] == 1
    before = server.asked["shard-000000.tar"], server.asked["index.safetensors"]
    assert remote.localize(f"{server.address}/set/manifest.json") == local
    assert (server.asked["shard-000000.tar"], server.asked["index.safetensors"]) == before


def test_it_goes_on_after_giving_up(
    served: tuple[Server, Path], write_dataset: Callable[..., Manifest]
) -> None:
    server, folder = served
    write_dataset(folder / "set")
    server.cut["shard-000001.tar"] = remote.ATTEMPTS
    with pytest.raises(InputError, match=r"shard-000001\.tar could not be downloaded in 3"):
        remote.localize(f"{server.address}/set")
    local = remote.localize(f"{server.address}/set")
    assert same_samples(local, folder / "set")
    assert server.asked["shard-000000.tar"] == 1


def test_altered_bytes_of_the_right_size_are_refused(
    served: tuple[Server, Path], write_dataset: Callable[..., Manifest]
) -> None:
    server, folder = served
    write_dataset(folder / "set")
    shard = folder / "set" / "shard-000000.tar"
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"shard-000000\.tar.*SHA-256"):
        remote.localize(f"{server.address}/set")
    assert server.asked["shard-000000.tar"] == remote.ATTEMPTS


def test_two_sets_of_one_name_do_not_meet(
    served: tuple[Server, Path], write_dataset: Callable[..., Manifest], plan_of: Any
) -> None:
    server, folder = served
    write_dataset(folder / "one" / "set", plan_of(3))
    write_dataset(folder / "two" / "set", plan_of(5))
    first = remote.localize(f"{server.address}/one/set")
    second = remote.localize(f"{server.address}/two/set")
    assert first != second
    assert same_samples(first, folder / "one" / "set")
    assert same_samples(second, folder / "two" / "set")


def test_no_data_set_and_unknown_protocols(served: tuple[Server, Path]) -> None:
    server, _ = served
    with pytest.raises(InputError, match=r"manifest\.json does not exist"):
        remote.localize(f"{server.address}/nothing")
    with pytest.raises(ConfigError, match="nosuch"):
        remote.localize("nosuch://x/y")


def test_a_manifest_cannot_name_files_elsewhere(
    served: tuple[Server, Path], write_dataset: Callable[..., Manifest]
) -> None:
    server, folder = served
    write_dataset(folder / "set")
    path = folder / "set" / "manifest.json"
    entry = json.loads(path.read_text())
    entry["shards"][0]["name"] = "../shard-000000.tar"
    manifest = Manifest.from_json(entry)
    path.chmod(0o644)
    path.write_text(json.dumps(manifest.to_json()))
    with pytest.raises(InputError, match="no plain file name"):
        remote.localize(f"{server.address}/set")
