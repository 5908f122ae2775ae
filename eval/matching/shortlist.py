"""The pairs of retrieval that are worth scoring: captions that name what the detector saw.

Q captions, K images, V words of the detector's labels.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semvlp.eval.lookup import RegionLookup
from semvlp.eval.task import Example, Scores
from semvlp.eval.tasks.retrieval_ranks import captioned_images, image_names
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.record import NO_ATTRIBUTE, Regions

_WORD = re.compile(r"[a-z]+")


class SeenWords(NamedTuple):
    """The words of the labels that the detector gave to K images, n of all images together."""

    counts: NDArray[np.int32]
    """[K], how many each image has."""
    words: NDArray[np.int32]
    """[n], indices in a vocabulary; those of the first image come first."""
    confidences: NDArray[np.float32]
    """[n] 0..1, the highest of a region whose label has the word."""

    @classmethod
    def joined(cls, parts: Sequence["SeenWords"]) -> "SeenWords":
        """Put the images of several together."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


class WordIndex:
    """The images in which each word was seen; rare words count more.

    Args:
        vocabulary: V words.
        seen: in K images.
    """

    def __init__(self, vocabulary: Sequence[str], seen: SeenWords) -> None:
        self._column = {word: index for index, word in enumerate(vocabulary)}
        self._num_images = len(seen.counts)
        order = np.argsort(seen.words, kind="stable")
        self._images = np.repeat(np.arange(self._num_images), seen.counts)[order]
        frequency = np.bincount(seen.words, minlength=len(vocabulary))  # [V]
        self._starts = np.concatenate([[0], frequency.cumsum()])  # [V + 1]
        rarity = np.log((1 + self._num_images) / (1 + frequency)) + 1
        self._scores = (seen.confidences * rarity[seen.words])[order].astype(np.float32)

    def overlap(self, texts: Sequence[str]) -> Scores:
        """Return cheap scores [Q, K]: confidence that each word of a text was detected."""
        scores = np.zeros((len(texts), self._num_images), np.float32)
        for row, text in zip(scores, texts, strict=True):
            # In one order, for sums of floats depend on it and sets have none.
            for word in sorted(words_of(text) & self._column.keys()):
                column = self._column[word]
                part = slice(self._starts[column], self._starts[column + 1])
                row[self._images[part]] += self._scores[part]
        return scores


def label_overlap(examples: Sequence[Example], lookup: RegionLookup, manifest: Manifest) -> Scores:
    """Return cheap scores [Q, K]: confidence that each word was detected; rare words count more."""
    vocabulary = label_words(manifest)
    regions = (lookup.sample(name).regions for name in image_names(examples))
    index = WordIndex(vocabulary, seen_words(regions, manifest, vocabulary))
    return index.overlap([example.text for example in examples])


def best_pairs(cheap: Scores, size: int) -> NDArray[np.bool_]:
    """Return [Q, K] True: the image is among the caption's `size` best, or the caption among its.

    Of equal scores the first ones are taken.
    """
    wanted = np.zeros(cheap.shape, bool)
    rows = np.argsort(-cheap, axis=1, kind="stable")[:, :size]
    columns = np.argsort(-cheap, axis=0, kind="stable")[:size]
    np.put_along_axis(wanted, rows, values=True, axis=1)
    np.put_along_axis(wanted, columns, values=True, axis=0)
    return wanted


def lost(examples: Sequence[Example], wanted: NDArray[np.bool_]) -> dict[str, float]:
    """Return what a shortlist costs, in percent.

    `ir_lost`: captions whose image is not compared with them; `tr_lost`: images that none of their
    captions is compared with. No recall can exceed 100 less these. `pairs`: what is computed.
    """
    column = {name: index for index, name in enumerate(captioned_images(examples))}
    image_of = np.array([column[example.images[0]] for example in examples])
    own = wanted[np.arange(len(examples)), image_of]
    compared = np.zeros(len(column), bool)
    np.logical_or.at(compared, image_of, own)
    return {
        "ir_lost": float(100 * (1 - own.mean())),
        "tr_lost": float(100 * (1 - compared.mean())),
        "pairs": float(100 * wanted.mean()),
    }


def label_words(manifest: Manifest) -> list[str]:
    """Return the vocabulary of a data set: every word of its labels, in order."""
    labels = (*manifest.object_labels, *manifest.attribute_labels)
    return sorted({word for label in labels for word in words_of(label)})


def seen_words(
    images: Iterable[Regions], manifest: Manifest, vocabulary: Sequence[str]
) -> SeenWords:
    """Return the words of each image's labels, each with its highest confidence there."""
    column = {word: index for index, word in enumerate(vocabulary)}
    every = [_seen(regions, manifest) for regions in images]
    return SeenWords(
        np.array([len(seen) for seen in every], np.int32),
        np.array([column[word] for seen in every for word in seen], np.int32),
        np.array([seen[word] for seen in every for word in seen], np.float32),
    )


def words_of(text: str) -> set[str]:
    """Return the words of a text in lower case, plural endings cut off alike everywhere."""
    return {_singular(word) for word in _WORD.findall(text.lower())}


def _singular(word: str) -> str:
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


def _seen(regions: Regions, manifest: Manifest) -> dict[str, float]:
    """Return each word with the highest confidence of a region whose label has it."""
    seen: dict[str, float] = {}
    kinds = (
        (regions.object_ids, regions.object_conf, manifest.object_labels),
        (regions.attribute_ids, regions.attribute_conf, manifest.attribute_labels),
    )
    for ids, confidences, labels in kinds:
        for index, confidence in zip(ids.tolist(), confidences.tolist(), strict=True):
            if index != NO_ATTRIBUTE and index < len(labels):
                for word in words_of(labels[index]):
                    seen[word] = max(seen.get(word, 0.0), confidence)
    return seen
