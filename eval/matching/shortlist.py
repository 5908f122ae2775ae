"""The pairs of retrieval that are worth scoring: captions that name what the detector saw.

Q captions, K images, V words of the detector's labels.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from semvlp.eval.lookup import RegionLookup
from semvlp.eval.task import Example, Scores
from semvlp.eval.tasks.retrieval import image_names
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.record import NO_ATTRIBUTE, Regions

_WORD = re.compile(r"[a-z]+")


def label_overlap(examples: Sequence[Example], lookup: RegionLookup, manifest: Manifest) -> Scores:
    """Return cheap scores [Q, K]: confidence that each word was detected; rare words count more."""
    seen = [_seen(lookup.sample(name).regions, manifest) for name in image_names(examples)]
    frequency = Counter(word for words in seen for word in words)
    column = {word: index for index, word in enumerate(sorted(frequency))}
    images = np.zeros((len(seen), len(column)), np.float32)  # [K, V]
    for row, words in enumerate(seen):
        for word, confidence in words.items():
            weight = math.log((1 + len(seen)) / (1 + frequency[word])) + 1
            images[row, column[word]] = confidence * weight
    captions = np.zeros((len(examples), len(column)), np.float32)  # [Q, V]
    for row, example in enumerate(examples):
        for word in words_of(example.text) & column.keys():
            captions[row, column[word]] = 1
    overlap: Scores = captions @ images.T
    return overlap


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
    column = {name: index for index, name in enumerate(image_names(examples))}
    image_of = np.array([column[example.images[0]] for example in examples])
    own = wanted[np.arange(len(examples)), image_of]
    compared = np.zeros(len(column), bool)
    np.logical_or.at(compared, image_of, own)
    return {
        "ir_lost": float(100 * (1 - own.mean())),
        "tr_lost": float(100 * (1 - compared.mean())),
        "pairs": float(100 * wanted.mean()),
    }


def words_of(text: str) -> set[str]:
    """Return the words of a text in lower case, plural endings cut off alike everywhere."""
    return {_singular(word) for word in _WORD.findall(text.lower())}


def _singular(word: str) -> str:
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


def _seen(regions: Regions, manifest: Manifest) -> Mapping[str, float]:
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
