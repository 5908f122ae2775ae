"""Images decoded by several processes, in bounded memory, to the bits one process gives."""

import os
import signal
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.errors import SemVLPError
from semvlp.shards.formats import import_export
from semvlp.shards.formats.import_export import import_format
from semvlp.shards.formats.table import load_format
from semvlp.shards.formats.tsv import encode_array, write_rows
from tests.train.processes import CONTEXT

IDS = ("one", "two", "three", "four")


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    """Four images, the features of the second damaged."""
    generator = np.random.default_rng(0)
    rows = []
    for image_id in IDS:
        boxes, features = generator.uniform(0, 400, (7, 4)), generator.normal(size=(7, 12))
        damage = "*" if image_id == "two" else ""
        columns = encode_array(boxes, "<f4"), damage + encode_array(features, "<f4")
        rows.append([image_id, 640, 480, 7, *columns])
    write_rows(tmp_path / "set.tsv", rows)
    return tmp_path / "set.tsv"


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A large row many times over: no more than some of them are ever held."""
    row = [640, 480, 50, *(encode_array(np.ones((50, width)), "<f4") for width in (4, 2048))]
    rows = 60
    size = write_rows(tmp_path / "large.tsv", ([f"image-{n}", *row] for n in range(rows)))
    assert size == rows
    tracemalloc.start()
    try:
        import_format(tmp_path / "large.tsv", tmp_path / "out", from_="butd-tsv", to="tar")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (tmp_path / "large.tsv").stat().st_size / 5


@pytest.fixture
def two_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes decode, however few the images and the cores are."""
    monkeypatch.setattr(import_export, "SMALLEST_PARALLEL", 1)
    monkeypatch.setattr(import_export.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    # They start at once.
    monkeypatch.setattr(import_export, "get_context", lambda method: CONTEXT)


@pytest.mark.usefixtures("two_decoders")
def test_processes_that_decode_give_the_same_bytes_and_refusals(
    tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, fewest in (("aside", 1), ("here", len(IDS) + 1)):
        monkeypatch.setattr(import_export, "SMALLEST_PARALLEL", fewest)
        import_format(tsv, tmp_path / name, from_="butd-tsv", to="tar")
    assert "column features is damaged" in (tmp_path / "here" / "refused.jsonl").read_text()
    for file in ("shard-000000.tar", "index.safetensors", "refused.jsonl"):
        assert (tmp_path / "aside" / file).read_bytes() == (tmp_path / "here" / file).read_bytes()


@pytest.mark.usefixtures("two_decoders")
def test_the_end_of_a_process_that_decodes_is_said_and_what_was_written_is_kept(
    tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = load_format("butd-tsv")

    def opened(src: Path) -> Any:
        dataset = real.open(src)
        return replace(
            dataset, task=lambda image_id: partial(_end, dataset.task(image_id), image_id)
        )

    with monkeypatch.context() as patch:
        patch.setattr(import_export, "load_format", lambda name: replace(real, open=opened))
        patch.setattr(import_export, "AHEAD", 0)
        with pytest.raises(SemVLPError, match=r"ended from outside.*goes on where"):
            import_format(tsv, tmp_path / "out", from_="butd-tsv", to="tar")
    manifest = import_format(tsv, tmp_path / "out", from_="butd-tsv", to="tar")
    assert manifest.counts["samples"] == len(IDS) - 1


def _end(read: Callable[[], Any], image_id: str) -> Any:
    """Read an image; at the last one the process ends."""
    if image_id == IDS[-1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return read()


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_half_has_the_bits_that_numpy_gives() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)].astype(np.float32)
    near = np.concatenate([np.nextafter(every, side) for side in (-np.inf, np.inf)])
    middle = (every[:-1] + every[1:]) / np.float32(2)
    values = np.concatenate([every, near, middle, np.float32([1e9, -1e9, 65519.9, 65520])])
    halves = import_export.half(values.astype(np.float32))
    np.testing.assert_array_equal(halves.view(np.uint16), values.astype(np.float16).view(np.uint16))
