"""A process that puts odd numbers into the files that describe a data set, and reads it each time.

Called with a folder; prints what was neither one error with the file's name nor what was written.
"""

import json
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import RLIMIT_AS, RLIMIT_CPU, setrlimit
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from semvlp.errors import SemVLPError
from semvlp.shards.dataset.manifest import CHECKSUM, MANIFEST_NAME
from semvlp.shards.dataset.plan import PLAN_NAME
from semvlp.shards.dataset.plan_file import read_plan
from semvlp.shards.maintenance.verify import verify
from semvlp.shards.open import open_store
from semvlp.shards.stores.tar_index import INDEX_NAME
from semvlp.shards.stream.stream import Stream
from semvlp.shards.writer import open_writer
from tests.shards.datasets import plan_of, write_dataset

ODD: list[Any] = [10**12, 2**70, 10**300, -1, -(10**12), 1.5, 1e300, True, False, None, "7", [1]]
ODD_COLUMNS = [-1, 2**31 - 1, 10**12, 2**63 - 1, -(2**63)]
MEMORY, SECONDS = 3 << 30, 120
Read = Callable[[Path], object]


def main(folder: Path) -> None:
    setrlimit(RLIMIT_AS, (MEMORY, MEMORY))
    setrlimit(RLIMIT_CPU, (SECONDS, SECONDS))
    wrong, tried = [], 0
    for store in ("tar", "lmdb"):
        made = folder / store
        write_dataset(made, plan_of(5), format=store, refused=["img-1"])  # type: ignore[arg-type]
        expected = contents(made)
        for name, read in READERS.items():
            if not (made / name).exists():
                continue
            for what, change in changes(made / name):
                tried += 1
                copy = folder / "copy"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(made, copy)
                change(copy / name)
                told = outcome(read, copy, expected)
                if told:
                    wrong.append(f"{store}/{name}: {what}: {told}")
    print(json.dumps({"tried": tried, "wrong": wrong}))


def outcome(read: Read, copy: Path, expected: object) -> str:
    """Return what is wrong with what came of reading, or nothing."""
    try:
        got = read(copy)
    except SemVLPError as error:
        return "" if str(copy) in str(error) else f"the error names no file: {error}"
    except BaseException:
        return traceback.format_exc(limit=-3)
    return "" if got in (None, expected) else "something else was read"


def contents(path: Path) -> object:
    """Read all of a data set: samples, texts, the orders of training."""
    with open_store(path) as store:
        stream = Stream([store], seed=0, batch_size=2)
        pairs = Stream([store], seed=0, batch_size=2, visit="pairs")
        read = [stream.read(0), pairs.read(0)]
        visits = [(v.sample.key, v.text, v.sample.texts) for one in read for v in one.visits()]
        samples = [store.sample(index) for index in range(len(store))]
        rows = [sample.regions.features.tobytes() for sample in samples]
        assert stream.most_rows * stream.feature_size < 10**6
        # How many images a shard was to have may be anything.
        assert sum(store.shard_sizes) == len(store)
        return visits, rows, store.manifest.counts


def described(path: Path) -> object:
    """Read all, and verify: it may find what reading does not need."""
    read = contents(path)
    verify(path)
    return read


def planned(path: Path) -> object:
    """Go on with a data set in work, and read its plan."""
    (path / MANIFEST_NAME).unlink()
    plan = read_plan(path)
    list(plan.shards(plan_part()))
    kind = "lmdb" if (path / "regions.lmdb").exists() else "tar"
    with open_writer(path, plan_of(5), format=kind):  # type: ignore[arg-type]
        return None


def plan_part() -> Any:
    from semvlp.shards.dataset.plan import Part

    return Part(0, 10**9)


def resumed(path: Path) -> object:
    """Go on with a data set in work; what its records do not say is found out anew."""
    (path / MANIFEST_NAME).unlink()
    with open_writer(path, plan_of(5), format="tar") as writer:
        writer.finish()
    return contents(path)


READERS: dict[str, Read] = {
    MANIFEST_NAME: described,
    PLAN_NAME: planned,
    INDEX_NAME: described,
    "shard-000000.json": resumed,
    "shard-000000.idx": resumed,
}


def changes(file: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Give every change of a number in a file, each with words for it."""
    if file.suffix == ".json":
        document = json.loads(file.read_bytes())
        for place in numbers(document):
            for odd in ODD:
                yield f"{place} = {odd!r:.40}", lambda path, p=place, o=odd: put(path, p, o)
        return
    for name, column in load_file(file).items():
        if name != "keys":
            for odd in ODD_COLUMNS:
                yield f"{name} = {odd}", lambda path, n=name, o=odd: put_column(path, n, o)
            yield f"{name} is longer", lambda path, n=name: put_column(path, n, None)
        assert len(column), "a column of an empty data set has no numbers"


def numbers(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the place of every number in a document."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            yield from numbers(inner, (*place, name))
    elif isinstance(value, int | float):
        yield place


def put(path: Path, place: tuple[Any, ...], odd: Any) -> None:
    """Put a value into a document that has no checksum, as those of others may not."""
    document = json.loads(path.read_bytes())
    document.pop(CHECKSUM, None)
    *outer, name = place
    inner = document
    for step in outer:
        inner = inner[step]
    inner[name] = odd
    path.write_text(json.dumps(document))


def put_column(path: Path, name: str, odd: int | None) -> None:
    columns = load_file(path)
    if odd is None:
        columns[name] = np.append(columns[name], columns[name][:1])
    else:
        column = columns[name].copy()
        limits = np.iinfo(column.dtype)
        column[0] = min(max(odd, limits.min), limits.max)
        columns[name] = column
    save_file(columns, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
