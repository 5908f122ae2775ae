"""`semvlp search`: the photographs of a store that a text speaks of.

K photographs, n of them compared with a text.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from semvlp.addresses import default_checkpoint
from semvlp.app.assistant import Assistant, checked, load
from semvlp.app.kept import KeptRows
from semvlp.app.pages import write_matches
from semvlp.closing import Closing
from semvlp.errors import ConfigError, InputError
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matching.cache import cache_texts
from semvlp.eval.network import check_regions, finite
from semvlp.eval.pages.gallery import Pictures
from semvlp.eval.task import Example, Scores
from semvlp.eval.tasks.retrieval import LABELS
from semvlp.extract.images.find import images_by_id
from semvlp.progress import bars, duration
from semvlp.shards.open import open_store

OWN, OF_DEMO = Path("runs/finetune-retrieval/best"), Path("runs/demo/pretrain/last")
SHORTLIST = 500


class Hit(NamedTuple):
    """A photograph that a text may speak of."""

    id: str
    name: str
    """As its file spells it, without the extension."""
    file: str | None
    """Where the photograph is; None where it is not among those that were named."""
    probability: float
    """0..1, that text and photograph belong together."""


class PhotoSearch(Closing):
    """The photographs of a store by what a text says; two-stream, so that a query is fast.

    The layers below the first cross-attention have run once for each photograph, see `KeptRows`.
    Of more photographs than `shortlist`, only so many are compared with a text: those whose
    detected labels it names best, rare ones first.

    Args:
        assistant: one with a matching head: fine-tuned on retrieval, or of pre-training and loaded
            with `zero_shot="retrieval"`.
        shards: the regions of the photographs.
        images: the photographs themselves (a directory, a list, a tar), to be named and shown.
        shortlist: how many photographs are compared with a text.
        allow_other_regions: whether the regions may be others than the checkpoint was trained on.

    Raises:
        ConfigError: the checkpoint has no matching head.
        InputError: no data set there, or an empty one, or one of other regions than those that the
            checkpoint was trained on.
    """

    def __init__(
        self,
        assistant: Assistant,
        shards: Path | str,
        *,
        images: Path | None = None,
        shortlist: int = SHORTLIST,
        allow_other_regions: bool = False,
    ) -> None:
        self.assistant, self._shortlist = assistant, shortlist
        network, checkpoint = assistant.network, assistant.checkpoint
        if network.model.config.task_head != "match":
            raise ConfigError(
                "search needs a checkpoint fine-tuned on retrieval, or one of pre-training, which "
                f"has a matching head, but {checkpoint} was fine-tuned on {assistant.task}"
            )
        self.files = images_by_id(images)
        self.store = open_store(shards)
        try:
            check_regions(
                network.model.config, checkpoint, self.store, allow_other=allow_other_regions
            )
            if not len(self.store):
                raise InputError(f"{self.store.path} holds no photographs to search")
            self.kept = KeptRows(network, self.store, checkpoint)
        except BaseException:
            self.store.close()
            raise

    def search(self, text: str, *, top: int = 12) -> list[Hit]:
        """Return the photographs that fit a text best, best first.

        Raises:
            InputError: an empty or endless text.
            SemVLPError: the network gives a score that is not finite.
        """
        photographs = self._compared(checked(text))
        odds = self._log_odds(text, photographs)
        chances = torch.from_numpy(odds).double().sigmoid()
        best = np.argsort(-odds, kind="stable")[:top].tolist()
        return [self._hit(photographs[index], float(chances[index])) for index in best]

    @property
    def num_compared(self) -> int:
        """n, the photographs that are compared with each text."""
        return min(self._shortlist, len(self.store))

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def _compared(self, text: str) -> list[int]:
        """Return the positions [n] of the photographs that are compared with a text."""
        if self.num_compared == len(self.store):
            return list(range(len(self.store)))
        (overlap,) = self.kept.words.overlap([text])
        best = np.argsort(-overlap, kind="stable")[: self.num_compared]
        return sorted(best.tolist())

    def _log_odds(self, text: str, photographs: Sequence[int]) -> Scores:
        """Return the log-odds [n] that a text and each photograph belong together."""
        network = self.assistant.network
        match = network.labels.index(LABELS[1])
        parts = []
        with network.inference():
            words = cache_texts(network, network.encode([text])).take(torch.tensor([0]))
            for start in range(0, len(photographs), network.batch_size):
                part = photographs[start : start + network.batch_size]
                texts, images = torch.zeros(len(part), dtype=torch.int64), torch.arange(len(part))
                logits = network.upper_logits(words, self.kept.take(part), texts, images)
                parts.append(logits[:, match] - logits[:, 1 - match])
        return finite(torch.cat(parts).numpy(), "two")

    def _hit(self, photograph: int, chance: float) -> Hit:
        image_id = self.store.image_ids[photograph]
        file = self.files.get(image_id)
        return Hit(image_id, self.store.name(photograph), str(file) if file else None, chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport:
    """The photographs that fit a text best, and what they were chosen from."""

    text: str
    hits: tuple[Hit, ...]
    photographs: int
    """K, in the store."""
    compared: int
    """n, with the text."""
    named: int
    """Of how many photographs the text names a detected label."""
    seconds: float
    """Of the search alone."""
    kept: Path | None
    """Where the rows are kept; None: nowhere."""
    page: Path | None

    def values(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {
            "text": self.text,
            "hits": [hit._asdict() for hit in self.hits],
            "photographs": self.photographs,
            "compared": self.compared,
            "seconds": round(self.seconds, 3),
            "kept": str(self.kept) if self.kept else None,
        } | ({"page": str(self.page)} if self.page else {})

    def sentence(self) -> str:
        """Write each photograph with a bar, and then what was done."""
        lines = bars([(hit.file or hit.name, hit.probability) for hit in self.hits])
        lines.append(self._compared())
        if self.page:
            lines.append(f"Open {self.page} in a browser.")
        return "\n".join(lines)

    def _compared(self) -> str:
        took = f"in {duration(self.seconds)}"
        if self.compared == self.photographs:
            return f"Compared all {self.photographs:,} photographs {took}."
        start = f"Compared {self.compared:,} of {self.photographs:,} photographs {took}"
        if not self.named:
            return f"{start}: the text names no label of the detector; --shortlist N compares more."
        return f"{start}: those whose detected labels the text names best."


def search(
    shards: Path | str,
    text: str,
    *,
    checkpoint: Path | str | None,
    top: int,
    page: Path | None,
    images: Path | None,
    shortlist: int | None,
    allow_other_regions: bool,
    device: str,
) -> SearchReport:
    """Search a store for photographs that fit a text; with `page` also show them.

    Raises:
        ConfigError: no checkpoint where none is named, or one without a matching head.
        InputError: as `PhotoSearch`, or an empty or endless text.
    """
    checkpoint = checkpoint or default_checkpoint("retrieval", own=OWN, of_demo=OF_DEMO)
    assistant = load(checkpoint, mode="two", device=device, zero_shot="retrieval")
    with PhotoSearch(
        assistant,
        shards,
        images=images,
        shortlist=shortlist or SHORTLIST,
        allow_other_regions=allow_other_regions,
    ) as photos:
        start = time.monotonic()
        hits = tuple(photos.search(text, top=top))
        seconds = time.monotonic() - start
        if page:
            _write_page(page, text, hits, photos)
        return SearchReport(
            text=text,
            hits=hits,
            photographs=len(photos.store),
            compared=photos.num_compared,
            named=int((photos.kept.words.overlap([text]) > 0).sum()),
            seconds=seconds,
            kept=photos.kept.folder,
            page=page,
        )


def _write_page(path: Path, text: str, hits: Sequence[Hit], photos: PhotoSearch) -> None:
    """Write a page with the photographs and the regions that the text attends to most."""
    network, store = photos.assistant.network, photos.store
    examples = [Example(example_id=hit.id, text=text, images=(hit.id,)) for hit in hits]
    lookup = RegionLookup(store, examples, max_regions=network.limits.max_regions)
    draw = Pictures(network, lookup, store, photos.files, "two")
    pictures = [draw(text, hit.id)[1] for hit in hits]
    write_matches(path, text, [hit.probability for hit in hits], pictures)
