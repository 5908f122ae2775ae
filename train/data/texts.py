"""The texts of stores, from which tokenizer and answer list are made; each tokenised once."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from semvlp.errors import InputError
from semvlp.model.tokenizer import encode
from semvlp.shards.record import Texts
from semvlp.shards.stores.store import Store
from semvlp.train.data.masking import MaskingVocabulary

log = logging.getLogger(__name__)


SAMPLED_TEXTS = 500_000
"""More than COCO's captions; a vocabulary is learned from them in seconds."""


def read_sample(stores: Sequence[Store], *, tell: bool = False) -> Iterator[Texts]:
    """Read the texts of evenly spaced images, as many as have about SAMPLED_TEXTS together.

    All of them where there are no more. They come in the order of the stores; no regions are read.
    Damaged ones are left out, which is said with `tell`.
    """
    stride, errors = _stride(stores), list[InputError]()
    for store in stores:
        yield from _whole_texts(store, stride, errors)
    if tell and errors:
        told = "the vocabulary is learned without the texts of %d damaged images, first: %s"
        log.warning(told, len(errors), errors[0])


def _whole_texts(store: Store, stride: int, errors: list[InputError]) -> Iterator[Texts]:
    """Read the texts of every `stride`-th image; those that are damaged become errors."""
    for index in range(0, len(store), stride):
        try:
            yield store.texts(index)
        except InputError as error:
            errors.append(error)


def _stride(stores: Sequence[Store]) -> int:
    texts = sum(max(_count_texts(store), len(store)) for store in stores)
    return max(math.ceil(texts / SAMPLED_TEXTS), 1)


def _count_texts(store: Store) -> int:
    counts = store.manifest.counts
    return counts["captions"] + counts["questions"]


def sentences(texts: Iterable[Texts]) -> Iterator[str]:
    """Give every caption and question."""
    for of_image in texts:
        yield from of_image.captions
        yield from (question.question for question in of_image.questions)


def most_frequent_answers(texts: Iterable[Texts], count: int) -> list[str]:
    """Return the `count` answers right for the most questions, ties in alphabetical order."""
    seen: Counter[str] = Counter()
    for of_image in texts:
        for question in of_image.questions:
            seen.update(answer for answer, score in question.answers.items() if score > 0)
    return sorted(seen, key=lambda answer: (-seen[answer], answer))[:count]


def check_texts(stores: Sequence[Store]) -> None:
    """Make sure that there is something to read, by what was counted when it was written.

    Raises:
        InputError: not one image has a text.
    """
    total = sum(len(store) for store in stores)
    if not any(map(_count_texts, stores)):
        names = " ".join(str(store.path) for store in stores)
        raise InputError(
            f"pre-training needs captions or questions, but none of the {total} images in {names} "
            f"has any; add them with: semvlp shards join {names} --texts FILE --out DIR"
        )
    stride = _stride(stores)
    bare = sum(_count_bare(store, stride) for store in stores)
    if bare:
        log.warning("%d of %d images have no text; only their regions are learned", bare, total)


def _count_bare(store: Store, stride: int) -> int:
    """Count the images without texts; where no index has their counts, by every `stride`-th."""
    counts = store.indexed_text_counts()
    if counts is not None:
        return int((counts == 0).sum())
    some = list(_whole_texts(store, stride, []))
    share = sum(not (texts.captions or texts.questions) for texts in some) / max(len(some), 1)
    return round(share * len(store))


LARGEST = 500_000  # texts; at 20 word pieces each about 150 MB


class TextCache:
    """Turns texts into ids `[CLS] ... [SEP]`; starts anew when it has grown to LARGEST texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        self._known: dict[str, NDArray[np.int64]] = {}

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the ids [T] int64 of each text; the arrays are shared: never write to them."""
        if len(self._known) > LARGEST:
            self._known.clear()
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            rows = encode(self._tokenizer, new, self._max_length)
            self._known.update(
                (text, np.array(ids, np.int64)) for text, ids in zip(new, rows, strict=True)
            )
        return [self._known[text] for text in texts]


def masking_vocabulary(tokenizer: PreTrainedTokenizerFast) -> MaskingVocabulary:
    """Gather what masking needs to know of a tokenizer."""
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    continues = np.array([piece.startswith("##") for piece in pieces])
    return MaskingVocabulary(int(tokenizer.mask_token_id), ordinary, continues)
