"""The rows of a store's photographs below the first cross-attention, kept beside its shards.

They lie in `SHARDS/search/PROFILE-CHECKPOINT/`, a block a file, with all else that a search reads
of a photograph that it does not show. `kept.json` there tells whose they are and what they were
made of. A block that was finished is not made again, however the process ended.

n photographs of a block, D width.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semvlp import atomic
from semvlp.app.block import Block, Damaged
from semvlp.documents import from_json
from semvlp.errors import ConfigError
from semvlp.eval.files.provenance import key_of
from semvlp.eval.lookup import pair_regions
from semvlp.eval.matching.cache import cache_images
from semvlp.eval.matching.shortlist import SeenWords, WordIndex, label_words, seen_words
from semvlp.eval.network import WEIGHTS_NAME, Network
from semvlp.model.layers.two_stream_cache import LowerStates
from semvlp.progress import Progress
from semvlp.shards.dataset.hashes import file_sha256, list_sha256
from semvlp.shards.record import Regions
from semvlp.shards.remote import cache_folder
from semvlp.shards.stores.store import Store

log = logging.getLogger(__name__)

FOLDER = "search"
MARK = "kept.json"
FORMAT = "semvlp-kept-rows"
BLOCK = 1024
"""Photographs of a file: 58 MB at base size with 36 regions each."""


class KeptRows:
    """The rows of every photograph of a store as a network has them in two-stream mode.

    What is missing or damaged is made at once, and kept beside the shards. Where these cannot be
    written it is kept in the cache of data sets, and where that cannot be either, in memory.

    Args:
        checkpoint: the folder that the network was opened from.
    """

    def __init__(self, network: Network, store: Store, checkpoint: Path) -> None:
        self._network, self._store = network, store
        self._vocabulary = label_words(store.manifest)
        self._inputs = _inputs(network, store, checkpoint)
        self._key = key_of(self._inputs)
        self.folder: Path | None = None
        """Where they are kept; None: in memory."""
        self._blocks = self._in_a_folder() or self._every_block()

    @cached_property
    def words(self) -> WordIndex:
        """Where the words of the detector's labels were seen."""
        seen = SeenWords.joined([block.seen for block in self._blocks])
        return WordIndex(self._vocabulary, seen)

    def take(self, photographs: Sequence[int]) -> LowerStates:
        """Return the rows of some photographs, by their positions in the store."""
        rows = [self._photograph(*divmod(index, BLOCK)) for index in photographs]
        like = self._network.like
        return LowerStates(
            torch.from_numpy(np.concatenate(rows)).to(like.device, like.dtype),
            torch.tensor([len(each) for each in rows]),
        )

    def _photograph(self, number: int, place: int) -> NDArray[np.float16]:
        try:
            return self._blocks[number].photograph(place)
        except Damaged as damage:
            log.warning("%s is damaged (%s), so it is made anew", self._path(number), damage)
            self._blocks[number] = self._made(number)
        with suppress(OSError):
            # What cannot be written, as where only reading is allowed, serves this search.
            self._write(number, self._blocks[number])
        return self._blocks[number].photograph(place)

    def _in_a_folder(self) -> list[Block]:
        """Keep the rows in the first folder that can hold them; return none where none can."""
        for folder in _folders(self._store, self._inputs):
            try:
                with atomic.locked(folder, wait=True):
                    _claim(folder, self._inputs)
                    self.folder = folder
                    return self._every_block()
            except (OSError, ConfigError) as error:
                log.warning("%s cannot keep the rows of photographs: %s", folder, error)
                self.folder = None
        log.warning("so they are kept in memory, and the next search makes them again")
        return []

    def _every_block(self) -> list[Block]:
        """Open the blocks that are there, and make the others."""
        blocks = [self._opened(number) for number in range(-(-len(self._store) // BLOCK))]
        there = [block for block in blocks if block]
        if len(there) == len(blocks):
            return there
        total, done = len(self._store), sum(map(len, there))
        with Progress("keeping rows", total=total, unit="photographs", done=done) as bar:
            for number, block in enumerate(blocks):
                if block is None:
                    blocks[number] = self._write(number, self._made(number, bar))
        return [block for block in blocks if block]

    def _opened(self, number: int) -> Block | None:
        """Open a block; return None where it is not there, or not as it was written."""
        path, width = self._path(number), self._network.model.config.hidden_size
        if not path.exists():
            return None
        try:
            return Block.opened(path, self._key, len(self._part(number)), width)
        except Damaged as damage:
            log.warning("%s is damaged (%s), so it is made anew", path, damage)
            return None

    def _made(self, number: int, bar: Progress | None = None) -> Block:
        """Run the lower layers for the photographs of a block."""
        network, part = self._network, self._part(number)
        rows: list[NDArray[np.float16]] = []
        seen: list[SeenWords] = []
        with network.inference():
            for start in part[:: network.batch_size]:
                batch = range(start, min(start + network.batch_size, part.stop))
                regions = [self._store.sample(index).regions for index in batch]
                rows += _rows(network, regions)
                seen.append(seen_words(regions, self._store.manifest, self._vocabulary))
                if bar:
                    bar.advance(len(batch))
        return Block.of(rows, SeenWords.joined(seen))

    def _write(self, number: int, block: Block) -> Block:
        """Write a block into the folder and return it as it lies there; in memory as it is."""
        if self.folder is None:
            return block
        atomic.write_bytes(self._path(number), block.to_bytes(self._key))
        return Block.opened(self._path(number), self._key, len(block), block.width)

    def _part(self, number: int) -> range:
        return range(number * BLOCK, min((number + 1) * BLOCK, len(self._store)))

    def _path(self, number: int) -> Path:
        return (self.folder or Path("memory")) / f"{number:06d}.safetensors"


def _rows(network: Network, regions: Sequence[Regions]) -> list[NDArray[np.float16]]:
    """Return the rows of each photograph; inside `network.inference()`."""
    limit = network.limits.max_regions
    cached = cache_images(network, [pair_regions(each, limit) for each in regions])
    return np.split(cached.rows.to("cpu", torch.float16).numpy(), cached.lengths.cumsum(0)[:-1])


def _inputs(network: Network, store: Store, checkpoint: Path) -> dict[str, Any]:
    """Return all that the rows depend on."""
    return {
        "profile": store.manifest.profile,
        "dataset_sha256": store.manifest.dataset_sha256,
        # A pattern opens some of the shards alone.
        "images_sha256": list_sha256(store.image_ids),
        "checkpoint_sha256": file_sha256(checkpoint / WEIGHTS_NAME),
        "config_sha256": file_sha256(checkpoint / "config.json"),
        "max_regions": network.limits.max_regions,
    }


def _folders(store: Store, inputs: Mapping[str, Any]) -> Iterator[Path]:
    """Yield where rows may be kept: beside the shards, and in the cache of data sets."""
    name = f"{inputs['profile']}-{inputs['checkpoint_sha256'][:16]}"
    whole = len(store) == store.manifest.counts["samples"]
    part = "" if whole else f"-{inputs['images_sha256'][:16]}"
    yield store.path / FOLDER / f"{name}{part}"
    yield cache_folder() / FOLDER / f"{name}-{inputs['images_sha256'][:16]}"


def _claim(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Make a folder that of these rows; those of other inputs go first.

    Raises:
        ConfigError: it holds something, and nothing tells that it is ours.
    """
    mark = folder / MARK
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        if _marked(mark) == inputs:
            return
        log.warning("%s is of other photographs or another network: made anew", folder)
        for path in folder.glob("[0-9]" * 6 + ".safetensors"):
            path.unlink()
    atomic.write_json(mark, {"format": FORMAT, "inputs": inputs})


def _marked(mark: Path) -> Any:
    try:
        about = from_json(mark.read_bytes())
        if about["format"] == FORMAT:
            return about["inputs"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    raise ConfigError(f"it holds files that {MARK} does not tell to be rows of ours; remove them")
