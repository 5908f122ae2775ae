"""The ranks that a matrix of scores gives, of all captions and all images.

Q captions, K images. Ranks start at 1 and are pessimistic: wrong candidates with the same score
stand before the right one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semvlp.eval import metrics
from semvlp.eval.task import Answer, Example, ExampleId, Rank, Scores

# A split of several times so many images is also scored by folds of so many.
FOLD = 1000
# The score of a pair that is not on the shortlist.
UNSCORED = -np.inf
# Rows of a score matrix whose two passes are averaged at a time: they need float64.
ROWS_AT_ONCE = 1024


def rank_answers(
    examples: Sequence[Example], matrix: NDArray[np.floating]
) -> dict[ExampleId, Answer]:
    """Rank all captions and images.

    Args:
        examples: Q captions.
        matrix: [Q, K] scores against `image_names(examples)`, higher fits better.
    """
    names = captioned_images(examples)
    column = {name: index for index, name in enumerate(names)}
    image_of = np.array([column[example.images[0]] for example in examples])
    by_caption = metrics.text_to_image(matrix, image_of)
    by_image = metrics.image_to_text(matrix[:, : len(names)], image_of)
    if matrix.shape[1] == len(names):
        for fold in folds(len(names)):
            _add_fold(by_caption, by_image, matrix, image_of, fold)
    ids = [example.example_id for example in examples]
    return {
        **dict(zip(ids, by_caption, strict=True)),
        **dict(zip(names, by_image, strict=True)),
    }


def folds(num_images: int) -> list[range]:
    """Return the columns of each fold; none where the images are not several times so many."""
    if num_images <= FOLD or num_images % FOLD:
        return []
    return [range(start, start + FOLD) for start in range(0, num_images, FOLD)]


def _add_fold(
    by_caption: list[Rank],
    by_image: list[Rank],
    matrix: NDArray[np.floating],
    image_of: NDArray[np.integer],
    fold: range,
) -> None:
    """Add the ranks within the fold of the images of some columns."""
    captions = ((image_of >= fold.start) & (image_of < fold.stop)).nonzero()[0]
    inner = matrix[captions, fold.start : fold.stop], image_of[captions] - fold.start
    for index, rank in zip(captions.tolist(), metrics.text_to_image(*inner), strict=True):
        by_caption[index] = _with_fold(by_caption[index], rank)
    for index, rank in enumerate(metrics.image_to_text(*inner), start=fold.start):
        by_image[index] = _with_fold(by_image[index], rank)


def _with_fold(rank: Rank, inner: Rank) -> Rank:
    return rank._replace(fold_rank=inner.rank, fold_ties=inner.ties)


def mean_log_odds(scores: Sequence[Scores]) -> Scores:
    """Return the log-odds of the mean of the probabilities that have these log-odds [Q, K].

    Nothing is rounded to 1 on the way.
    """
    mean = np.empty_like(scores[0], np.float32)
    for start in range(0, len(mean), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        odds = np.stack([matrix[part] for matrix in scores]).astype(np.float64)
        yes, no = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
        mean[part] = np.logaddexp.reduce(yes, axis=0) - np.logaddexp.reduce(no, axis=0)
    return mean


def captioned_images(examples: Sequence[Example]) -> list[str]:
    """Return the images of the captions, each once, as they first occur."""
    return list(dict.fromkeys(example.images[0] for example in examples))


def image_names(examples: Sequence[Example]) -> list[str]:
    """Return the K columns: the images of the captions, then those without a caption."""
    own = dict.fromkeys(captioned_images(examples))
    # All examples of a file have the same gallery.
    galleries = {id(example.gallery): example.gallery for example in examples}
    rest = (name for gallery in galleries.values() for name in gallery if name not in own)
    return [*own, *dict.fromkeys(rest)]


def highest(row: NDArray[np.floating], count: int) -> NDArray[np.integer]:
    """Return the columns of the highest values, the highest first, of equal ones the first."""
    # Whole rows are not sorted: there are thousands, of thousands of columns.
    least = np.partition(row, -count)[-count] if count < len(row) else -np.inf
    columns = (row >= least).nonzero()[0]
    return columns[np.argsort(-row[columns], kind="stable")][:count]
