"""What goes wrong in the world: kills at any moment, a full disk, bits that flip."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from semvlp.errors import SemVLPError
from semvlp.names import StoreFormat
from semvlp.shards.maintenance.verify import verify
from semvlp.shards.open import open_store
from semvlp.shards.writer import open_writer
from tests.shards.datasets import contents, plan_of, sample_of, write_dataset

KILLS = 30
FLIPS = 200

# One image every few milliseconds, so that a kill may come anywhere.
WRITING = """
import sys, time
from pathlib import Path
from semvlp.shards.open import open_store
from semvlp.shards.writer import open_writer
with open_store(sys.argv[1]) as store:
    plan = store.manifest.plan(store.image_ids)
    with open_writer(Path(sys.argv[2]), plan, format=sys.argv[3]) as writer:
        print("writing", flush=True)
        for image_id in writer.pending:
            writer.write_members(*store.members(store.index_of(image_id)))
            time.sleep(0.004)
        writer.finish()
"""


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(tmp_path: Path, format: StoreFormat) -> None:
    plan = plan_of(300, samples_per_shard=40)
    write_dataset(tmp_path / "source", plan)
    command = [sys.executable, "-c", WRITING, tmp_path / "source", tmp_path / "out", format]
    moments = random.Random(1)
    kills = 0
    while kills < KILLS:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0, 0.3))
            process.kill()
        if process.returncode == 0:
            # It was faster; all over again.
            assert verify(tmp_path / "out") == []
            shutil.rmtree(tmp_path / "out")
        else:
            assert process.returncode == -signal.SIGKILL
            kills += 1
    assert subprocess.run(command, stdout=subprocess.PIPE).returncode == 0
    assert verify(tmp_path / "out") == []
    with open_store(tmp_path / "out") as store:
        assert list(store.image_ids) == list(plan.image_ids)
    write_dataset(tmp_path / "whole", plan, format=format)
    if format == "tar":
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a small file system is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_and_nothing_finished_is_lost(
    small_disk: Path, tmp_path: Path, format: StoreFormat
) -> None:
    plan = plan_of(400, samples_per_shard=20)
    out = small_disk / "set"

    def write_all() -> None:
        with open_writer(out, plan, format=format) as writer:
            for image_id in writer.pending:
                writer.write(sample_of(image_id, regions=30))
            writer.finish()

    with pytest.raises(SemVLPError, match=r"disk.*is full.*same command") as caught:
        write_all()
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.ENOSPC
    finished = {path.name: path.read_bytes() for path in out.glob("shard-*.tar")}
    assert finished or format == "lmdb"
    assert not (out / "manifest.json").exists()

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    with open_writer(out, plan, format=format) as writer:
        assert 0 < len(writer.pending) < len(plan.image_ids)
    write_all()
    assert verify(out) == []
    assert {name: (out / name).read_bytes() for name in finished} == finished


def flip(path: Path, offset: int, bit: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


# A damaged LMDB is read in a process of its own, each of which takes a moment to start.
@pytest.mark.parametrize("format", ["tar", pytest.param("lmdb", marks=pytest.mark.slow)])
def test_every_flipped_bit_of_every_file_is_found(tmp_path: Path, format: StoreFormat) -> None:
    write_dataset(tmp_path, plan_of(6, samples_per_shard=3), format=format, refused=["img-4"])
    files = sorted(path for path in tmp_path.iterdir() if path.is_file())
    places = random.Random(7)
    missed = []
    for _ in range(FLIPS):
        path = places.choice(files)
        offset, bit = places.randrange(path.stat().st_size), places.randrange(8)
        flip(path, offset, bit)
        if not verify(tmp_path):
            missed.append((path.name, offset, bit))
        flip(path, offset, bit)
    assert missed == []
    assert verify(tmp_path) == []


def test_a_full_disk_at_the_end_of_a_part_leaves_no_half_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_writer(tmp_path, plan_of(), format="tar") as writer:
        writer.write(sample_of("img-0"))
        monkeypatch.setattr(os, "fdatasync", full)
        with pytest.raises(SemVLPError, match="is full"):
            writer.write(sample_of("img-1"))
        monkeypatch.undo()
    with open_writer(tmp_path, plan_of(), format="tar") as writer:
        assert writer.pending[0] in ("img-0", "img-1", "img-2")
        for image_id in writer.pending:
            writer.write(sample_of(image_id))
        writer.finish()
    assert verify(tmp_path) == []
