"""Remote data sets are copied whole, checked, and kept by content; a real server is asked."""

import json
import os
import random
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.shards import remote
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.maintenance.convert import join
from semvlp.shards.open import open_store
from tests.shards.datasets import plan_of, write_dataset


class Server(ThreadingHTTPServer):
    """Serves a directory, counts what is asked for, and answers badly as often as it is told."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.stalled: Counter[str] = Counter()
        self.failing: Counter[str] = Counter()
        self.over = Event()
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.server.asked[name] += 1
        if self.server.dropped[name] > 0:
            self.server.dropped[name] -= 1
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if self.server.failing[name] > 0:
            self.server.failing[name] -= 1
            self.send_error(503)
            return
        if self.server.stalled[name] > 0:
            self.server.stalled[name] -= 1
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"so far")
            self.server.over.wait(10)
            self.close_connection = True
            return
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
        server.over.set()
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


def test_a_data_set_is_copied_and_opens(served: tuple[Server, Path], format: str) -> None:
    server, folder = served
    write_dataset(folder / "set", format=format)
    local = remote.localize(f"{server.address}/set/")
    assert same_samples(local, folder / "set")
    assert not list(local.parent.rglob("*.part"))


def test_cut_answers_are_asked_for_again_and_finished_files_kept(
    served: tuple[Server, Path],
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


def test_a_server_that_drops_fails_cuts_and_stalls_is_asked_until_all_is_there(
    served: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, folder = served
    monkeypatch.setattr(remote, "STALL_SECONDS", 0.3)
    write_dataset(folder / "set", plan_of(20))
    faults = random.Random(3)
    names = [path.name for path in (folder / "set").glob("*.tar")]
    for name in [*names, "manifest.json", "index.safetensors"]:
        kind = faults.choice([server.cut, server.dropped, server.stalled, server.failing])
        kind[name] = faults.randrange(remote.ATTEMPTS)
    local = remote.localize(f"{server.address}/set")
    assert same_samples(local, folder / "set")
    assert sum(server.asked.values()) > len(names) + 2


def test_texts_whose_regions_lie_elsewhere_are_not_downloaded(
    served: tuple[Server, Path], tmp_path: Path
) -> None:
    server, folder = served
    write_dataset(folder / "regions")
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"image_id": "img-2", "captions": ["another"]}\n')
    join(folder / "regions", [texts], folder / "set", refer=True)
    with pytest.raises(InputError, match=r"/set .*the regions of \.\./regions .*shards convert"):
        open_store(f"{server.address}/set")
    assert server.asked == {"manifest.json": 1}


def test_a_store_opens_by_its_address(served: tuple[Server, Path]) -> None:
    server, folder = served
    write_dataset(folder / "set")
    with open_store(f"{server.address}/set") as store:
        assert store.sample(0).key == "img-0"


def test_the_cache_keeps_within_its_bound(
    served: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, folder = served
    for name, count in (("one", 3), ("two", 4), ("three", 5)):
        write_dataset(folder / name, plan_of(count))
    first, second = (remote.localize(f"{server.address}/{name}") for name in ("one", "two"))
    os.utime(first / remote.USED_NAME, (1, 1))
    size = remote._size(first) + remote._size(second)
    monkeypatch.setenv(remote.BOUND_VARIABLE, str(size / 1e9))
    with pytest.raises(ConfigError, match=r"are in use.*raise SEMVLP_CACHE_GB"):
        remote.localize(f"{server.address}/three")
    for folder_in_use in (first, second):
        remote._in_use.pop(folder_in_use).close()
    third = remote.localize(f"{server.address}/three")
    assert not first.exists()
    assert third.exists()
    assert same_samples(third, folder / "three")


def test_it_goes_on_after_giving_up(served: tuple[Server, Path]) -> None:
    server, folder = served
    write_dataset(folder / "set")
    server.cut["shard-000001.tar"] = remote.ATTEMPTS
    with pytest.raises(InputError, match=r"shard-000001\.tar could not be downloaded in 3"):
        remote.localize(f"{server.address}/set")
    local = remote.localize(f"{server.address}/set")
    assert same_samples(local, folder / "set")
    assert server.asked["shard-000000.tar"] == 1


def test_altered_bytes_of_the_right_size_are_refused(served: tuple[Server, Path]) -> None:
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


def test_two_sets_of_one_name_do_not_meet(served: tuple[Server, Path]) -> None:
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


def test_a_manifest_cannot_name_files_elsewhere(served: tuple[Server, Path]) -> None:
    server, folder = served
    write_dataset(folder / "set")
    path = folder / "set" / "manifest.json"
    manifest = Manifest.from_json(json.loads(path.read_text()))
    shard = replace(manifest.shards[0], name="../shard-000000.tar")
    manifest = replace(manifest, shards=(shard, *manifest.shards[1:]))
    path.chmod(0o644)
    path.write_text(json.dumps(manifest.to_json()))
    with pytest.raises(InputError, match="no plain file name"):
        remote.localize(f"{server.address}/set")


def test_a_server_of_shards_may_not_send_us_on_to_plain_http(tmp_path: Path) -> None:
    class SendsOn(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/manifest.json")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), SendsOn) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        with pytest.raises(
            ConfigError, match=r"^http://192\.0\.2\.1/manifest\.json: .*--allow-http"
        ):
            remote.localize(f"http://127.0.0.1:{server.server_port}/shards")
        server.shutdown()


def test_a_file_that_cannot_be_synced_has_no_name(
    served: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, folder = served
    write_dataset(folder / "set")
    fsync = os.fsync

    def no_disk(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("shard-000001.tar"):
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_disk)
        with pytest.raises(InputError, match="Input/output error"):
            remote.localize(f"{server.address}/set")
    names = {path.name for path in Path(os.environ["SEMVLP_CACHE"]).rglob("*")}
    assert "shard-000000.tar" in names
    assert not {name for name in names if "000001" in name or "part" in name or "manifest" in name}
    assert same_samples(remote.localize(f"{server.address}/set"), folder / "set")
