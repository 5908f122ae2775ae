"""Run by `test_ranks`: extracts again and again, killed at random points, until enough were hit.

Arguments: folder of images, folder for the outputs, number of processes, number of kills, seed,
format.
Each output is finished at last. Processes are forked from one that has everything imported, so that
a run takes as long as its work.
"""

import os
import random
import shutil
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from semvlp.extract.detectors import batched
from semvlp.extract.detectors.on_torchvision import backend  # noqa: F401
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.stores import lmdb_writer

SETTINGS = ExtractSettings(
    detector="demo", device="cpu", batch_size=2, workers=1, samples_per_shard=3, max_bad=1.0
)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(images: Path, out: Path, size: int, settings: ExtractSettings) -> list[int]:
    """The processes of one run."""
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if not child:
            os.environ.update(
                RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
            )
            extract(images, out, settings)
            os._exit(0)
        children.append(child)
    return children


def finish(children: list[int]) -> None:
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"a process ended with {status}")


def kill(children: list[int]) -> bool:
    """Kill what still runs; whether anything did."""
    hit = False
    for child in children:
        if os.waitpid(child, os.WNOHANG)[0]:
            continue
        os.kill(child, signal.SIGKILL)
        hit |= os.waitpid(child, 0)[1] == signal.SIGKILL
    return hit


def main() -> None:
    images, outs, size, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
    settings = replace(SETTINGS, format=sys.argv[6])
    # As on a GPU, images are convolved together, and which ones decides how they are rounded.
    batched._IMAGES_PER_PASS["cpu"] = 2
    # As few as in a shard, so that kills fall between the transactions of an LMDB too.
    lmdb_writer.SAMPLES_PER_TRANSACTION = SETTINGS.samples_per_shard
    started = time.monotonic()
    finish(start(images, outs / "0", size, settings))
    seconds = time.monotonic() - started
    rng, hits, number = random.Random(seed), 0, 1
    while hits < kills:
        out = outs / str(number)
        # A few kills hit the same output, each in what the one before left.
        for _ in range(3):
            children = start(images, out, size, settings)
            time.sleep(rng.uniform(0, seconds))
            hits += kill(children)
        finish(start(images, out, size, settings))
        number += 1
    shutil.rmtree(outs / "0")
    print(f"{hits} kills within {seconds:.1f} s, {number - 1} outputs")


if __name__ == "__main__":
    main()
