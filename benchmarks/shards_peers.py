"""The same synthetic images in every format, and how the system of each format reads them."""

import base64
import csv
import json
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import lmdb
import msgpack
import msgpack_numpy
import numpy as np
import safetensors.numpy
import torch
import webdataset
from numpy.typing import NDArray

from semvlp.shards.dataset.plan import Plan
from semvlp.shards.formats.import_export import export_format
from semvlp.shards.maintenance.convert import convert
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions, Sample, Texts
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
    if not data.path("hdf5").exists():
        write_hdf5(data)
    for name in ("vilbert-lmdb", "lxmert-tsv"):
        if not data.path(name).exists():
            export_format(data.path("tar"), data.path(name), to=name)
    if not data.path("msgpack").exists():
        write_msgpack(data)
    if not data.path("lxmert-half").exists():
        with data.path("lxmert-tsv").open("rb") as rows, data.path("lxmert-half").open("wb") as out:
            out.writelines(islice(rows, data.images // 2))


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


def write_hdf5(data: Data) -> None:
    """The rows of all images behind one another, in plain datasets: what HDF5 reads fastest."""
    with open_store(data.path("tar")) as store, h5py.File(data.path("hdf5"), "w") as file:
        counts = [len(store.sample(index).regions) for index in range(len(store))]
        ends = np.cumsum(counts)
        features = file.create_dataset("features", (ends[-1], FEATURES), np.float16)
        boxes = file.create_dataset("boxes", (ends[-1], 4), np.float32)
        file["ends"] = ends
        for index, end in enumerate(ends):
            regions = store.sample(index).regions
            features[end - len(regions) : end] = regions.features
            boxes[end - len(regions) : end] = regions.boxes


def shuffled(data: Data, count: int) -> list[str]:
    """Image ids in random order."""
    return [f"{n:012d}" for n in np.random.default_rng(1).permutation(data.images)[:count]]


def of_webdataset(data: Data) -> Iterator[Item]:
    """Stock webdataset and safetensors on our own shards."""
    tars = [str(path) for path in sorted(data.path("tar").glob("*.tar"))]
    for found in webdataset.WebDataset(tars, shardshuffle=False):
        tensors = safetensors.numpy.load(found["regions.safetensors"])
        yield tensors["regions"], tensors["boxes"], json.loads(found["json"])


def of_hdf5(data: Data) -> Iterator[Item]:
    """h5py, by plain slices: its `read_direct` into the batch was slower by a third."""
    with h5py.File(data.path("hdf5"), "r") as file:
        features, boxes, ends = file["features"], file["boxes"], file["ends"][:].tolist()
        for index in map(int, shuffled(data, data.images)):
            start = ends[index - 1] if index else 0
            yield features[start : ends[index]], boxes[start : ends[index]], None


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
