"""The damaged images that a pre-training is without: `damaged.jsonl`, a line for each."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from semvlp.atomic import sync
from semvlp.distributed import World
from semvlp.errors import InputError
from semvlp.eval.files.inputs import DAMAGED_NAME
from semvlp.shards.batch import Damage
from semvlp.train.run.files import read_lines
from semvlp.train.step import MicroBatch

MOST = 0.5
"""Of the images; with fewer whole ones the damage is of the disk, and to go on is a waste."""

log = logging.getLogger(__name__)


class DamageLog:
    """The damaged images that a run has met up to step `done`; every rank knows all of them.

    Args:
        images: how many the data hold.
    """

    def __init__(self, run: Path, world: World, *, images: int, done: int) -> None:
        self._path, self._world, self._images = run / DAMAGED_NAME, world, images
        # The first rank takes back what stands there of later steps, perhaps not yet.
        entries = (entry for entry in read_lines(self._path) if entry["step"] <= done)
        self._known = {(entry.get("store"), entry.get("id")) for entry in entries}
        self._met: list[tuple[int, Damage]] = []

    def __len__(self) -> int:
        return len(self._known)

    def meet(self, step: int, micro_batches: Sequence[MicroBatch]) -> None:
        """Note what a step of this rank was without."""
        self._met += [(step, damage) for one in micro_batches for damage in one.damaged]

    def settle(self) -> None:
        """Tell each image once, from whichever rank it comes; called on all ranks together.

        Raises:
            InputError: more than MOST of the images are damaged.
        """
        before = len(self)
        for step, damage in sorted(self._world.collected(self._met)):
            if (damage.store, damage.image_id) not in self._known:
                self._known.add((damage.store, damage.image_id))
                if self._world.is_first:
                    self._tell(step, damage)
        self._met.clear()
        if self._world.is_first and len(self) > before:
            sync(self._path)
        if len(self) > MOST * self._images:
            raise InputError(
                f"{len(self)} of {self._images} images are damaged, which is more than {MOST:.0%}, "
                f"see {self._path}; copy the shards again: the same command then goes on from the "
                "last checkpoint"
            )

    def _tell(self, step: int, damage: Damage) -> None:
        log.warning("left out of training: %s", damage.reason)
        entry = {
            "step": step,
            "id": damage.image_id,
            "store": damage.store,
            "reason": damage.reason,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
