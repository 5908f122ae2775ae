"""Samples a second out of shards: this project against a plain copy and five ways others take.

    python benchmarks/shards.py --folder FOLDER

Everything is written from the same synthetic images and read in random order (stock webdataset: in
the order of its files) into the same preallocated packed float16 batch: features, boxes, texts
where the format has them. HDF5 has features and boxes in plain datasets. Every reader has one
thread; `process` rows have a second process that reads, and deliver the batch to this one, as a
training step takes it. `copy` moves the bytes of the features alone, each sample by one call, from
the warm memory-mapped file into that batch, with everything else done before; `read` reads the
files through in order, as `cat` does.

Every round runs each reader once, so that a noisy machine is noisy for all; ratios are medians of
the rounds. Before each round every file is read and our stores go through an epoch: the first
compares checksums, as in training. `cold` rows begin with the files out of the cache of the system,
which is asked whether they are; those of the second process compare checksums, being its first
epoch. The start of a process is in no row: `process` rows are timed behind the first batches, and
an import by two whole commands: the images that all rows have more than half of them, over the
seconds more. One round of 2,000 images takes about a minute where nothing else runs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import torch
import webdataset
from shards_peers import (
    FEATURES,
    Data,
    Item,
    of_hdf5,
    of_lxmert,
    of_msgpack,
    of_pickles,
    of_webdataset,
    write_all,
)
from shards_timing import Ours, evict, importing, loaded, loading, rate, read_through

from semvlp.shards.batch import Columns, empty_columns
from semvlp.shards.formats.import_export import SMALLEST_PARALLEL

AIMS = {"webdataset": 5, "pickled LMDB": 15, "LXMERT TSV": 80}
COPY_AIM = 0.75
IMPORT_AIM = 3


def readers_of(data: Data, ours: dict[str, Ours], out: Columns) -> dict[str, Callable[[], float]]:
    """What is measured, by the name of its row."""
    tars, vilbert, lxmert = (data.path(name) for name in ("tar", "vilbert-lmdb", "lxmert-tsv"))

    def peer(items: Callable[[], Iterator[Item]]) -> Callable[[], float]:
        return lambda: rate(items, out, data.batch_size)

    def cold(path: Path, run: Callable[[], float]) -> Callable[[], float]:
        def emptied() -> float:
            for store in ours.values():
                store.empty_cache()
            evict(path)
            return run()

        return emptied

    def read_tars() -> float:
        return read_through(sorted(tars.glob("*.tar")), data.images)

    webdataset_here = peer(lambda: of_webdataset(data))
    hdf5 = peer(lambda: of_hdf5(data))
    pickles = peer(lambda: of_pickles(data))
    rows = peer(lambda: of_lxmert(data, data.few))
    found: dict[str, Callable[[], float]] = {"read, tar": read_tars}
    for name, store in ours.items():
        found |= {
            f"copy, {name}": store.limit,
            f"SemVLP {name}": store.here,
            f"SemVLP {name}, process": store.process,
        }
    found |= {
        "HDF5": hdf5,
        "webdataset": webdataset_here,
        "webdataset, process": lambda: loaded(data),
        "msgpack LMDB": peer(lambda: of_msgpack(data)),
        "pickled LMDB": pickles,
        "LXMERT TSV": rows,
        "read, tar, cold": cold(tars, read_tars),
    }
    for name, store in ours.items():
        found |= {
            f"SemVLP {name}, cold": store.here_cold,
            f"SemVLP {name}, process, cold": store.process_cold,
        }
    return found | {
        "HDF5, cold": cold(data.path("hdf5"), hdf5),
        "webdataset, cold": cold(tars, webdataset_here),
        "pickled LMDB, cold": cold(vilbert, pickles),
        "LXMERT TSV, cold": cold(lxmert, rows),
        "LXMERT loads its TSV": lambda: loading(data),
        "SemVLP imports it": lambda: importing(data),
    }


def measure(data: Data, rounds: int, regions: int) -> dict[str, list[float]]:
    """Samples a second of every reader in every round."""
    out = empty_columns(data.batch_size * regions, FEATURES)
    ours = {
        name: Ours(data.path(folder), out, data.batch_size)
        for name, folder in (("tar", "tar"), ("LMDB", "lmdb"))
    }
    readers = readers_of(data, ours, out)
    found: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        # The cold rows have emptied the cache.
        read_through([path for path in data.folder.rglob("*") if path.is_file()], data.images)
        for store in ours.values():
            store.warm()
        for name, run in readers.items():
            found[name].append(run())
            print(".", end="", file=sys.stderr, flush=True)
    for store in ours.values():
        store.reader.close()
    return found


def print_tables(found: dict[str, list[float]], sample_bytes: int) -> None:
    """Medians, and the ratios that are aimed at."""
    print("\n| reader | samples/s | GB/s of features | spread |\n| --- | ---: | ---: | ---: |")
    for name, rates in found.items():
        median = statistics.median(rates)
        spread = (max(rates) - min(rates)) / median
        print(f"| {name} | {median:,.0f} | {median * sample_bytes / 1e9:.2f} | {spread:.0%} |")

    def ratio(first: str, second: str) -> float:
        pairs = zip(found[first], found[second], strict=True)
        return statistics.median(one / two for one, two in pairs)

    print("\n| ratio | found | aim |\n| --- | ---: | ---: |")
    for store in ("tar", "LMDB"):
        found_ratio = ratio(f"SemVLP {store}", f"copy, {store}")
        print(f"| {store} / plain copy | {found_ratio:.2f} | {COPY_AIM} |")
    print(f"| tar / HDF5 | {ratio('SemVLP tar', 'HDF5'):.1f} | |")
    for peer, aim in AIMS.items():
        print(f"| tar / {peer} | {ratio('SemVLP tar', peer):.1f} | {aim} |")
    print(f"| tar / msgpack LMDB | {ratio('SemVLP tar', 'msgpack LMDB'):.1f} | |")
    for name in ("tar", "tar, process", "tar, cold"):
        peer = name.replace("tar", "webdataset")
        if name == "tar, cold":
            print(f"| {name} / HDF5, cold | {ratio(f'SemVLP {name}', 'HDF5, cold'):.1f} | |")
        if name != "tar":
            print(f"| {name} / {peer} | {ratio(f'SemVLP {name}', peer):.1f} | |")
    imported = ratio("SemVLP imports it", "LXMERT loads its TSV")
    print(f"| import / LXMERT's load | {imported:.1f} | {IMPORT_AIM} |")


def facts(given: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    versions = {
        module.__name__: module.__version__ for module in (np, torch, webdataset, lmdb, h5py)
    }
    return {
        **{name: str(value) for name, value in vars(given).items()},
        **versions,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "commit": commit.stdout.strip(),
    }


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="6 MB an image are needed")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument(
        "--few", type=int, default=500, help="images that slow readers are timed on"
    )
    parser.add_argument("--regions", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if SMALLEST_PARALLEL <= given.images < 2 * SMALLEST_PARALLEL:
        parser.error(f"--images must be {2 * SMALLEST_PARALLEL} or more, or few, so that half of ")
    given.folder.mkdir(parents=True, exist_ok=True)
    data = Data(
        folder=given.folder, images=given.images, batch_size=given.batch_size, few=given.few
    )
    write_all(data, given.regions)
    found = measure(data, given.rounds, given.regions)
    print_tables(found, given.regions * FEATURES * 2)
    print(json.dumps(facts(given)))


if __name__ == "__main__":
    main()
