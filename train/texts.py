"""The texts of whole stores: what tokenizer and answer list are made from."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from semvlp.errors import InputError
from semvlp.shards.record import Texts
from semvlp.shards.stores.store import Store

log = logging.getLogger(__name__)


def read_all(stores: Sequence[Store]) -> Iterator[Texts]:
    """The texts of every image, in the order of the stores, without reading regions."""
    return (store.texts(index) for store in stores for index in range(len(store)))


def sentences(texts: Iterable[Texts]) -> Iterator[str]:
    """Every caption and question."""
    for found in texts:
        yield from found.captions
        yield from (question.question for question in found.questions)


def most_frequent_answers(texts: Iterable[Texts], count: int) -> list[str]:
    """The `count` answers that are right for the most questions, ties in alphabetical order."""
    seen: Counter[str] = Counter()
    for found in texts:
        for question in found.questions:
            seen.update(answer for answer, score in question.answers.items() if score > 0)
    return sorted(seen, key=lambda answer: (-seen[answer], answer))[:count]


def check_texts(stores: Sequence[Store]) -> None:
    """Make sure that there is something to read.

    Raises:
        InputError: not one image has a text.
    """
    bare = sum(not (found.captions or found.questions) for found in read_all(stores))
    total = sum(len(store) for store in stores)
    if bare == total:
        names = " ".join(str(store.path) for store in stores)
        raise InputError(
            f"pre-training needs captions or questions, but none of the {total} images in {names} "
            f"has any; add them with: semvlp shards join {names} --texts FILE --out DIR"
        )
    if bare:
        log.warning("%d of %d images have no text; only their regions are learned", bare, total)
