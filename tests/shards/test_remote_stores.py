"""Data sets on the Hugging Face hub, on S3 and on Google Cloud: the clients are the real ones."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.shards import remote
from semvlp.shards.open import open_store
from tests.shards.datasets import write_dataset

REPOSITORY = "someone/regions"
COMMIT = "1" * 40


class Hub(ThreadingHTTPServer):
    """One data set repository as the hub shows it; answers are cut short as often as it is told."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cut: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), HubHandler)


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        files = f"/datasets/{REPOSITORY}/resolve/main/"
        listing = f"/api/datasets/{REPOSITORY}/tree/main"
        if path.startswith(files):
            self.send_file(self.server.folder / path.removeprefix(files))
        elif path.startswith(listing):
            self.send_list(path.removeprefix(listing).strip("/"))
        elif path == f"/api/datasets/{REPOSITORY}":
            self.send_bytes(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": []}).encode())
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def send_list(self, folder: str) -> None:
        entries = [
            {"type": "file", "path": f"{folder}/{path.name}", "size": path.stat().st_size}
            for path in sorted((self.server.folder / folder).iterdir())
        ]
        self.send_bytes(json.dumps([{**entry, "oid": COMMIT} for entry in entries]).encode())

    def send_file(self, path: Path) -> None:
        self.server.asked[path.name] += 1
        data = path.read_bytes()
        if self.server.cut[path.name] > 0:
            self.server.cut[path.name] -= 1
            self.send_bytes(data, kept=len(data) // 2)
        else:
            self.send_bytes(data)

    def send_bytes(self, data: bytes, kept: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{len(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:kept])
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    """The address of a server that answers as long as the context."""
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# The hub's client reads its settings when it is imported.
OPENING = """
import sys
from semvlp.shards import remote
from semvlp.shards.open import open_store
remote.BACKOFF_SECONDS = 0.01
with open_store(sys.argv[1]) as store:
    print(*store.image_ids, store.sample(len(store) - 1).regions.features.sum())
"""


def open_from_hub(address: str, folder: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Open a data set in a program of its own."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hub"),
        remote.CACHE_VARIABLE: str(folder / "cache"),
    }
    return subprocess.run(
        [sys.executable, "-c", OPENING, address],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_data_set_on_the_hub_opens_and_broken_answers_are_asked_for_again(tmp_path: Path) -> None:
    write_dataset(tmp_path / "hub" / "train")
    hub = Hub(tmp_path / "hub")
    hub.cut.update({"manifest.json": 1, "shard-000001.tar": 2})
    with serving(hub) as endpoint:
        done = open_from_hub(f"hf://datasets/{REPOSITORY}/train", tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    with open_store(tmp_path / "hub" / "train") as store:
        last = store.sample(len(store) - 1).regions.features.sum()
        assert done.stdout.split() == [*store.image_ids, str(last)]
    assert hub.asked["shard-000001.tar"] == 3
    assert hub.asked["shard-000000.tar"] == 1


def test_a_repository_that_is_not_there_is_said(tmp_path: Path) -> None:
    with serving(Hub(tmp_path)) as endpoint:
        done = open_from_hub("hf://datasets/someone/nothing", tmp_path, endpoint)
    assert done.returncode == 1
    assert "InputError: hf://datasets/someone/nothing/manifest.json does not exist" in done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_data_set_in_a_bucket_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'semvlp[remote]'")
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    write_dataset(tmp_path / "set")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv(remote.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "BACKOFF_SECONDS", 0.01)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3")
        client.create_bucket(Bucket="regions")
        for path in (tmp_path / "set").iterdir():
            client.upload_file(str(path), "regions", f"train/{path.name}")
        with open_store("s3://regions/train") as store, open_store(tmp_path / "set") as expected:
            assert store.image_ids == expected.image_ids
            for index in range(len(expected)):
                assert store.members(index) == expected.members(index)
        with pytest.raises(InputError, match=r"s3://regions/nothing/manifest\.json does not exist"):
            open_store("s3://regions/nothing")
    finally:
        server.stop()


@pytest.mark.parametrize(("protocol", "package"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_missing_package_is_named_in_one_sentence(protocol: str, package: str) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ConfigError) as caught:
        remote.localize(f"{protocol}://bucket/set")
    message = str(caught.value)
    assert message.startswith(f"{protocol}://bucket/set needs the package {package}")
    assert "pip install 'semvlp[remote]'" in message
    assert "\n" not in message
