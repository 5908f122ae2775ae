"""A process that damages a database byte by byte, and has a process of its own read each.

Called with a kind, a folder, a number of flips and a seed; prints what became of them as JSON.
"""

import json
import os
import pickle
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semvlp.errors import InputError
from semvlp.shards.formats.table import load_format
from semvlp.shards.open import open_store
from semvlp.shards.stores.lmdb_format import BRANCH, LEAF
from semvlp.shards.stores.lmdb_store import open_environment, put_all
from tests.shards.datasets import plan_of, sample_of, write_dataset

COUNT = 400
RIGHT, REFUSED = 0, 1
WRONG = 2


def ours(folder: Path) -> tuple[Path, Callable[[], None]]:
    """Make a store of ours; reading it compares every sample."""
    plan = plan_of(COUNT, feature_size=8)
    write_dataset(folder, plan, format="lmdb")

    def read() -> None:
        with open_store(folder) as store:
            assert len(store) == COUNT
            for index, image_id in enumerate(store.image_ids):
                got, made = store.sample(index), sample_of(image_id)
                assert np.array_equal(got.regions.features, made.regions.features)

    return folder / "regions.lmdb", read


def foreign(folder: Path, version: int) -> tuple[Path, Callable[[], None]]:
    """Make a database of ViLBERT's, half of its values on pages of their own."""
    import lmdb

    folder.mkdir()
    environment = lmdb.open(str(folder), map_size=1 << 27, lib_version=version)
    items = {f"{number:05d}".encode(): pickle.dumps(entry(number)) for number in range(COUNT)}
    put_all(environment, {**items, b"keys": pickle.dumps(list(items))}.items())
    environment.close()

    def read() -> None:
        dataset = load_format("vilbert-lmdb").open(folder)
        # Without its list every key is an image, also what was the key of the list.
        assert len(dataset.image_ids) in (COUNT, COUNT + 1)
        for number in range(COUNT):
            raw = dataset.read(f"{number:05d}")
            assert np.array_equal(raw.features, entry(number)["features"])
        dataset.close()

    return folder / "data.mdb", read


def writing(folder: Path) -> tuple[Path, Callable[[], None]]:
    """Make a database that is written to once more, in which pages are free."""
    folder.mkdir()
    file = folder / "part.lmdb"
    for start in range(0, COUNT, 100):
        environment = open_environment(file, readonly=False)
        put_all(environment, [(b"%05d" % n, b"x" * 30) for n in range(start + 100)])
        environment.close()
    whole = file.read_bytes()

    def read() -> None:
        environment = open_environment(file, readonly=False)
        put_all(environment, [(b"more", b"y" * 9000)])
        environment.close()

    def read_and_restore() -> None:
        try:
            read()
        finally:
            file.write_bytes(whole)

    return file, read_and_restore


def entry(number: int) -> dict[str, Any]:
    """Return an image with its number in each of its features."""
    size = {"image_h": 10, "image_w": 20, "num_boxes": 2}
    boxes = np.array([[1, 2, 19, 9], [0, 0, 5, 5]], np.float32)
    width = 700 if number % 2 else 5
    return {**size, "boxes": boxes, "features": np.full((2, width), number, np.float32)}


KINDS: dict[str, Callable[[Path], tuple[Path, Callable[[], None]]]] = {
    "ours": ours,
    "version 1": lambda folder: foreign(folder, 0),
    "version 3": lambda folder: foreign(folder, 1),
    "writing": writing,
}


def places(data: bytes) -> list[int]:
    """Return the bytes by which LMDB finds its way: heads, and the nodes of branches and leaves."""
    header = 16 if struct.unpack_from("<I", data, 16)[0] == 0xBEEFC0DE else 24
    found = [page + byte for page in (0, 4096) for byte in range(header + 136)]
    for page in range(8192, len(data), 4096):
        number, kind = struct.unpack_from("<Q", data, page)[0], data[page + header - 6]
        if number != page // 4096 or kind not in (BRANCH, LEAF):
            continue
        (lower,) = struct.unpack_from("<H", data, page + header - 4)
        base = 0 if header == 16 else header
        found += range(page, page + base + lower)
        for place in range(page + header, page + base + lower, 2):
            node = page + base + struct.unpack_from("<H", data, place)[0]
            flags, key = struct.unpack_from("<HH", data, node + 4)
            big = data[page + header - 6] == LEAF and flags & 1
            found += range(node, node + 8 + key + 8 * big)
    return found


def outcome(read: Callable[[], None]) -> int:
    """Read in a process of its own; returns how that ended, a signal as a negative number."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        read()
    except InputError:
        os._exit(REFUSED)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(WRONG)
    os._exit(RIGHT)


def main(kind: str, folder: str, flips: int, seed: int) -> None:
    """Damage one byte after the other, each alone."""
    file, read = KINDS[kind](Path(folder) / "set")
    assert outcome(read) == RIGHT
    whole = file.read_bytes()
    chosen, generator = places(whole), random.Random(seed)
    outcomes: Counter[int] = Counter()
    with file.open("r+b", buffering=0) as opened:
        for _ in range(flips):
            place = generator.choice(chosen)
            changed = whole[place] ^ (1 << generator.randrange(8))
            changed = generator.choice([changed, changed, 0, 255])
            os.pwrite(opened.fileno(), bytes([changed]), place)
            ended = outcome(read)
            os.pwrite(opened.fileno(), whole[place : place + 1], place)
            outcomes[ended] += 1
            if ended not in (RIGHT, REFUSED):
                print(f"byte {place} {whole[place]} -> {changed}: {ended}", file=sys.stderr)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
