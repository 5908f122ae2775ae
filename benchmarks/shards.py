"""Samples a second out of shards: this project against a plain copy and four ways others take.

    python benchmarks/shards.py --images 2000 --folder FOLDER

Everything is written from the same synthetic images and read in random order (stock webdataset: in
the order of its files) into the same preallocated packed float16 batch: features, boxes, captions.
`copy` moves the bytes of the features alone from the warm memory-mapped file into that batch. Every
round runs each reader once, so that a noisy machine is noisy for all; ratios are medians of the
rounds. `process` rows deliver the batch to another process, the one that trains. Checksums are
compared in an epoch before the rounds, as in training.
"""

import argparse
import base64
import csv
import json
import os
import pickle
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import msgpack_numpy
import numpy as np
import safetensors.numpy
import torch
import webdataset
from numpy.typing import NDArray

from semvlp.shards.batch import Columns, empty_columns
from semvlp.shards.codec import decode_tensors
from semvlp.shards.convert import convert
from semvlp.shards.formats import export_format
from semvlp.shards.plan import Plan
from semvlp.shards.reader import Reader
from semvlp.shards.record import Regions, Sample, Texts
from semvlp.shards.store import Store, open_store
from semvlp.shards.stream import Stream
from semvlp.shards.writer import open_writer

FEATURES = 2048
LXMERT_FIELDS = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
LXMERT_ARRAYS = (
    *(("objects_id", np.int64), ("objects_conf", np.float32)),
    *(("attrs_id", np.int64), ("attrs_conf", np.float32)),
    *(("boxes", np.float32), ("features", np.float32)),
)
TARGETS = {"webdataset": 5, "pickled LMDB": 15, "LXMERT TSV": 80}
Item = tuple[NDArray[Any], NDArray[Any], Any]
"""Features, boxes, and texts where the format has them."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The same images in every format."""

    folder: Path
    images: int
    batch_size: int
    few: int
    """Images that slow readers are timed on."""

    def path(self, name: str) -> Path:
        """Where one of the formats lies."""
        return self.folder / name


def write_all(data: Data, regions: int) -> None:
    """Every format, unless it is there already."""
    if not (data.path("tar") / "manifest.json").exists():
        write_tar(data, regions)
    if not (data.path("lmdb") / "manifest.json").exists():
        convert(data.path("tar"), data.path("lmdb"), to="lmdb")
    for name in ("vilbert-lmdb", "lxmert-tsv"):
        if not data.path(name).exists():
            export_format(data.path("tar"), data.path(name), to=name)
    if not data.path("msgpack").exists():
        write_msgpack(data)


def write_tar(data: Data, regions: int) -> None:
    """Features like those behind a ReLU: half of them zero."""
    random = np.random.default_rng(0)
    ids = tuple(f"{number:012d}" for number in range(data.images))
    plan = Plan(
        image_ids=ids,
        extractor={"network": "benchmark"},
        object_labels=(),
        attribute_labels=(),
        feature_size=FEATURES,
        samples_per_shard=max(data.images // 8, 1),
    )
    with open_writer(data.path("tar"), plan, format="tar") as writer:
        for image_id in writer.pending:
            boxes = random.uniform(0, 400, (regions, 4)).astype(np.float32)
            sample = Regions(
                image_id=image_id,
                width=640,
                height=480,
                boxes=boxes,
                proposals=boxes,
                features=random.normal(size=(regions, FEATURES)).clip(0).astype(np.float16),
                object_ids=random.integers(0, 1600, regions).astype(np.int16),
                object_conf=np.linspace(1, 0.2, regions).astype(np.float16),
                attribute_ids=random.integers(0, 400, regions).astype(np.int16),
                attribute_conf=np.linspace(1, 0.2, regions).astype(np.float16),
                profile=plan.profile,
            )
            captions = tuple(f"a photograph of scene {image_id}, told anew {n}" for n in range(5))
            writer.write(Sample(key=image_id, regions=sample, texts=Texts(captions=captions)))
        writer.finish()


def write_msgpack(data: Data) -> None:
    """One float16 dictionary an image, as UNITER's uncompressed databases."""
    with open_store(data.path("tar")) as store:
        environment = lmdb.open(str(data.path("msgpack")), map_size=2**40, lib_version=0)
        for index in range(len(store)):
            regions = store.sample(index).regions
            entry = {"features": regions.features, "norm_bb": regions.boxes}
            with environment.begin(write=True) as transaction:
                transaction.put(
                    regions.image_id.encode(), msgpack.dumps(entry, default=msgpack_numpy.encode)
                )
        environment.close()


def packed(items: Iterator[Item], out: Columns, batch_size: int) -> int:
    """Fill batch after batch; returns the samples."""
    count = 0
    while batch := list(islice(items, batch_size)):
        start = 0
        for features, boxes, _ in batch:
            end = start + len(features)
            out["features"][start:end] = features
            out["boxes"][start:end] = boxes
            start = end
        count += len(batch)
    return count


def shuffled(data: Data, count: int) -> list[str]:
    """Image ids in random order."""
    return [f"{n:012d}" for n in np.random.default_rng(1).permutation(data.images)[:count]]


def of_webdataset(data: Data) -> Iterator[Item]:
    """Stock webdataset and safetensors on our own shards."""
    tars = [str(path) for path in sorted(data.path("tar").glob("*.tar"))]
    for found in webdataset.WebDataset(tars, shardshuffle=False):
        tensors = safetensors.numpy.load(found["regions.safetensors"])
        yield tensors["regions"], tensors["boxes"], json.loads(found["json"])


def of_pickles(data: Data) -> Iterator[Item]:
    """As vilbert-multi-task reads, without its search through the list of keys."""
    environment = lmdb.open(
        str(data.path("vilbert-lmdb")), readonly=True, lock=False, readahead=False, meminit=False
    )
    for image_id in shuffled(data, data.few):
        with environment.begin(write=False) as transaction:
            item = pickle.loads(transaction.get(str(int(image_id)).encode()))
        yield item["features"].reshape(-1, FEATURES), item["boxes"].reshape(-1, 4), None
    environment.close()


def of_msgpack(data: Data) -> Iterator[Item]:
    """As UNITER reads its uncompressed databases."""
    environment = lmdb.open(str(data.path("msgpack")), readonly=True, lock=False, readahead=False)
    with environment.begin(buffers=True) as transaction:
        for image_id in shuffled(data, data.few):
            item = msgpack.loads(
                transaction.get(image_id.encode()), object_hook=msgpack_numpy.decode, raw=False
            )
            yield item["features"], item["norm_bb"], None
    environment.close()


def of_lxmert(data: Data, count: int) -> Iterator[Item]:
    """As airsplay/lxmert src/utils.py `load_obj_tsv` reads."""
    csv.field_size_limit(sys.maxsize)
    with data.path("lxmert-tsv").open() as file:
        for item in islice(csv.DictReader(file, LXMERT_FIELDS, delimiter="\t"), count):
            boxes = int(item["num_boxes"])
            arrays = {
                name: np.frombuffer(base64.b64decode(item[name]), kind)
                for name, kind in LXMERT_ARRAYS
            }
            yield arrays["features"].reshape(boxes, -1), arrays["boxes"].reshape(boxes, 4), None


def copy_features(store: Store, out: Columns, order: list[int], batch_size: int) -> int:
    """The limit: bytes from the memory-mapped file into the batch, everything else done before."""
    with store.borrow(order) as members:
        sources = [
            memoryview(decode_tensors(blob)["features"].reshape(-1)).cast("B")
            for _, blob in members
        ]
        target = memoryview(out["features"].reshape(-1)).cast("B")
        begin = time.perf_counter()
        for first in range(0, len(sources) - batch_size + 1, batch_size):
            start = 0
            for source in sources[first : first + batch_size]:
                target[start : start + len(source)] = source
                start += len(source)
        seconds = time.perf_counter() - begin
    return int(len(sources) // batch_size * batch_size / seconds)


class Ours:
    """One of our stores, read in this process or by a process of its own."""

    def __init__(self, path: Path, out: Columns, batch_size: int) -> None:
        self.store = open_store(path)
        self.out, self.batch_size = out, batch_size
        self.batches = len(self.store) // batch_size
        self.stream = Stream([self.store], seed=0, batch_size=batch_size, negatives=False)
        self.reader = Reader(Stream([self.store], seed=0, batch_size=batch_size, negatives=False))
        for position in range(0, len(self.store), batch_size):
            self.stream.pack(position, out)
            next(self.reader)

    def limit(self) -> float:
        """Samples a second of the plain copy."""
        order = np.random.default_rng(2).permutation(len(self.store)).tolist()
        return copy_features(self.store, self.out, order, self.batch_size)

    def here(self) -> float:
        """Samples a second packed in this process."""
        begin = time.perf_counter()
        for number in range(self.batches):
            self.stream.pack(number * self.batch_size, self.out)
        return self.batches * self.batch_size / (time.perf_counter() - begin)

    def process(self) -> float:
        """Samples a second delivered by the reading process, texts decoded."""
        begin = time.perf_counter()
        for _ in range(self.batches):
            next(self.reader).visits()
        return self.batches * self.batch_size / (time.perf_counter() - begin)

    def cold(self) -> float:
        """`process`, the file out of the cache of the system before; start-up left out."""
        self.reader.load_state_dict(self.reader.state_dict())
        self.store.close()
        evict(self.store.path)
        next(self.reader)
        return self.process()


class Packing(torch.utils.data.IterableDataset[Any]):
    """Stock webdataset packed into batches by a worker of the DataLoader."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        items = of_webdataset(self.data)
        while batch := list(islice(items, self.data.batch_size)):
            features = np.concatenate([item[0] for item in batch])
            boxes = np.concatenate([item[1] for item in batch])
            yield torch.from_numpy(features), torch.from_numpy(boxes), [item[2] for item in batch]


def loaded(data: Data) -> float:
    """Samples a second of webdataset through a DataLoader with one worker, start-up left out."""
    batches = iter(torch.utils.data.DataLoader(Packing(data), batch_size=None, num_workers=1))
    next(batches)
    begin, count = time.perf_counter(), 0
    for _, _, texts in batches:
        count += len(texts)
    return count / (time.perf_counter() - begin)


def evict(folder: Path) -> None:
    """Drop the files of a folder from the cache of the system."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(items: Callable[[], Iterator[Item]], out: Columns, batch_size: int) -> float:
    """Samples a second of a peer."""
    begin = time.perf_counter()
    return packed(items(), out, batch_size) / (time.perf_counter() - begin)


def importing(data: Data) -> float:
    """Images a second of a whole import of the TSV, the start of the program included."""
    shutil.rmtree(data.path("imported"), ignore_errors=True)
    command = [sys.executable, "-m", "semvlp.cli", "--quiet", "shards", "import"]
    command += [str(data.path("lxmert-tsv")), str(data.path("imported"))]
    begin = time.perf_counter()
    subprocess.run([*command, "--from", "lxmert-tsv", "--to", "tar"], check=True)
    return data.images / (time.perf_counter() - begin)


def loading(data: Data) -> float:
    """Images a second of LXMERT's loader, which keeps them all in memory."""
    begin = time.perf_counter()
    kept = list(of_lxmert(data, data.images))
    return len(kept) / (time.perf_counter() - begin)


def measure(data: Data, rounds: int, regions: int) -> dict[str, list[float]]:
    """Samples a second of every reader in every round."""
    out = empty_columns(data.batch_size * regions, FEATURES)
    tar, database = (Ours(data.path(name), out, data.batch_size) for name in ("tar", "lmdb"))
    readers: dict[str, Callable[[], float]] = {
        "copy, tar": tar.limit,
        "SemVLP tar": tar.here,
        "copy, LMDB": database.limit,
        "SemVLP LMDB": database.here,
        "SemVLP tar, process": tar.process,
        "SemVLP LMDB, process": database.process,
        "SemVLP tar, process, cold": tar.cold,
        "SemVLP LMDB, process, cold": database.cold,
        "webdataset": lambda: rate(lambda: of_webdataset(data), out, data.batch_size),
        "webdataset, process": lambda: loaded(data),
        "msgpack LMDB": lambda: rate(lambda: of_msgpack(data), out, data.batch_size),
        "pickled LMDB": lambda: rate(lambda: of_pickles(data), out, data.batch_size),
        "LXMERT TSV": lambda: rate(lambda: of_lxmert(data, data.few), out, data.batch_size),
        "LXMERT loads its TSV": lambda: loading(data),
        "SemVLP imports it": lambda: importing(data),
    }
    found: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, run in readers.items():
            found[name].append(run())
            print(".", end="", file=sys.stderr, flush=True)
    tar.reader.close()
    database.reader.close()
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
        print(f"| {store} / plain copy | {ratio(f'SemVLP {store}', f'copy, {store}'):.2f} | 0.75 |")
    for peer, aim in TARGETS.items():
        print(f"| tar / {peer} | {ratio('SemVLP tar', peer):.1f} | {aim} |")
    print(f"| tar / msgpack LMDB | {ratio('SemVLP tar', 'msgpack LMDB'):.1f} | |")
    through = ratio("SemVLP tar, process", "webdataset, process")
    print(f"| tar / webdataset, to the training process | {through:.1f} | |")
    print(
        f"| import / LXMERT's load | {ratio('SemVLP imports it', 'LXMERT loads its TSV'):.1f} | 3 |"
    )


def facts(given: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    versions = {module.__name__: module.__version__ for module in (np, torch, webdataset, lmdb)}
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
