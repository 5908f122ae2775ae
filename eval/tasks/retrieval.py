"""Retrieval: the image of a caption among all images, the captions of an image among all captions.

Q captions, K images: those of the captions first, then those without a caption, which captions are
compared with and which are no query. The leaderboard file holds a rank for every caption and every
image that has one.
Ranks within folds of 1,000 images (COCO "1k": kuanghuei/SCAN evaluation.py, fold5) stand beside
those among all images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from semvlp.errors import InputError
from semvlp.eval import metrics
from semvlp.eval.credits import Credits, mean_of
from semvlp.eval.files.forms import RankFile
from semvlp.eval.files.submission import checked, unique
from semvlp.eval.task import (
    Answer,
    Example,
    ExampleId,
    Head,
    Loss,
    Pass,
    Passes,
    Rank,
    RegionsOf,
    Scores,
)
from semvlp.eval.tasks.base import BaseTask
from semvlp.eval.tasks.retrieval_ranks import (
    UNSCORED,
    captioned_images,
    folds,
    highest,
    image_names,
    mean_log_odds,
    rank_answers,
)
from semvlp.shards.texts.annotation_files import require
from semvlp.shards.texts.official_files import (
    coco_captions,
    karpathy_images,
    layout_of,
    read_document,
    wrong_file,
)

# In the order of the matching head of pre-training: class 1 means that text and image match.
LABELS = ("mismatch", "match")
# Karpathy's COCO split gives the rest of the validation images to training.
KARPATHY_SPLITS = {"train": ("train", "restval")}
# The first images of a caption that are kept to look at.
RETRIEVED = 4


class Retrieval(BaseTask):
    """Recall over the full caption x image matrix; there is no official scorer."""

    name = "retrieval"
    head: Head = "match"
    loss: Loss = "cross_entropy"
    metric = "rsum"
    fixed_labels = LABELS
    draws_negatives = True
    form = RankFile()

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Read an example a caption, from Karpathy JSON (`split` of it) or COCO captions JSON."""
        return unique((example for path in paths for example in _examples(path, split)), paths)

    def zero_shot_labels(self, answers: Sequence[str]) -> list[str]:
        """Return those of the matching head, whatever the answers."""
        return list(LABELS)

    def ids(self, examples: Sequence[Example]) -> list[ExampleId]:
        """Return every caption, then every image that has one."""
        return [example.example_id for example in examples] + captioned_images(examples)

    def baseline_examples(self, paths: Sequence[Path]) -> list[Example]:
        """Return none: a text alone has no label."""
        return []

    def check_shortlist(self) -> None:
        """Allow one."""

    def run_pass(self, passes: Passes, mode: Pass) -> Scores:
        """Return the log-odds [Q, K] that caption and image match."""
        return passes.score_matrix(mode)

    def mean(self, scores: Sequence[Scores]) -> Scores:
        """Return the log-odds of the mean probability."""
        return mean_log_odds(scores)

    def answers(
        self,
        examples: Sequence[Example],
        labels: Sequence[str],
        scores: Scores,
        regions: RegionsOf,
    ) -> dict[ExampleId, Answer]:
        """Return the ranks of all captions and images."""
        return rank_answers(examples, scores)

    def example_score(self, example: Example, answer: Answer) -> float:
        """Return 1 where the image of the caption stands first, else 0."""
        return float(isinstance(answer, Rank) and answer.rank == 1)

    def confidence(self, scores: Scores) -> Scores | None:
        """Return none: pairs have probabilities, a rank has not."""
        return None

    def retrieved(
        self, examples: Sequence[Example], scores: Scores
    ) -> Mapping[ExampleId, Sequence[str]]:
        """Return the images of the highest scores; fewer where a shortlist names fewer."""
        names = image_names(examples)
        return {
            example.example_id: [
                names[column]
                for column in highest(row, RETRIEVED).tolist()
                if row[column] != UNSCORED
            ]
            for example, row in zip(examples, scores, strict=True)
        }

    def credits(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Credits]:
        """Return those of all recalls, clustered by image."""
        queries = _queries(examples, checked(self.ids(examples), answers, Rank))
        credits = _credits(*queries)
        folds = [_credits(*fold) for fold in _folds(*queries)]
        by_fold = {f"1k_{name}": mean_of([f[name] for f in folds]) for name in credits if folds}
        return {**credits, **by_fold}

    def score(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, float]:
        """Return recalls of both directions, their mean and sum, and the number of ties.

        They are `ir_r1`, `ir_r5`, `ir_r10` (caption to image), `tr_...` (image to caption), their
        mean `r_mean`, their sum `rsum`, and `ties`: how many queries have a wrong candidate that
        ties. With folds there are the same as `1k_...`, means over the folds.
        """
        ranks = checked(self.ids(examples), answers, Rank)
        queries = _queries(examples, ranks)
        scores = _recalls(*queries)
        folds = [_recalls(*fold) for fold in _folds(*queries)]
        by_fold = {f"1k_{name}": fmean(f[name] for f in folds) for name in scores if folds}
        return {**scores, **by_fold, "ties": sum(rank.ties > 0 for rank in ranks)}


class _Query(NamedTuple):
    """A caption or an image, and where its right candidate stands."""

    key: ExampleId
    image: str
    rank: Rank


_Queries = tuple[list[_Query], list[_Query]]
"""Those of the captions, and those of the images."""


def _queries(examples: Sequence[Example], ranks: Sequence[Rank]) -> _Queries:
    captions = [(example.example_id, example.images[0]) for example in examples]
    images = [(name, name) for name in captioned_images(examples)]
    every = [_Query(*k, rank) for k, rank in zip([*captions, *images], ranks, strict=True)]
    return every[: len(captions)], every[len(captions) :]


def _recalls(by_caption: Sequence[_Query], by_image: Sequence[_Query]) -> dict[str, float]:
    to_image = metrics.recalls([query.rank for query in by_caption], "ir")
    recalls = to_image | metrics.recalls([query.rank for query in by_image], "tr")
    rsum = sum(recalls.values())
    return {**recalls, "r_mean": rsum / len(recalls), "rsum": rsum}


def _credits(by_caption: Sequence[_Query], by_image: Sequence[_Query]) -> dict[str, Credits]:
    credits: dict[str, Credits] = {}
    means = []
    for prefix, queries in (("ir", by_caption), ("tr", by_image)):
        ranks = np.array([query.rank.rank for query in queries])
        hits = {f"{prefix}_r{k}": (ranks <= k).astype(float) for k in metrics.RECALLS}
        ids = [query.image for query in queries], [query.key for query in queries]
        credits |= {name: Credits(values, *ids) for name, values in hits.items()}
        means.append(Credits(np.mean([*hits.values()], axis=0), *ids))
    mean, count = mean_of(means), len(credits)
    rsum = replace(mean, values=count * np.asarray(mean.values), most=float(count))
    return {**credits, "r_mean": mean, "rsum": rsum}


def _folds(by_caption: Sequence[_Query], by_image: Sequence[_Query]) -> list[_Queries]:
    """Return the queries of each fold, with their ranks within it."""
    column = {query.image: index for index, query in enumerate(by_image)}

    def inner(queries: Sequence[_Query], fold: range) -> list[_Query]:
        own = [query for query in queries if column[query.image] in fold]
        return [q._replace(rank=Rank(q.rank.fold_rank or 0, q.rank.fold_ties or 0)) for q in own]

    ranks = [query.rank for query in (*by_caption, *by_image)]
    if any(rank.fold_rank is None or rank.fold_ties is None for rank in ranks):
        return []
    return [(inner(by_caption, fold), inner(by_image, fold)) for fold in folds(len(by_image))]


def _examples(path: Path, split: str) -> Iterator[Example]:
    document = read_document(path)
    layout = layout_of(document)
    if layout is not None and layout.read is karpathy_images:
        return _karpathy(document, path, split)
    if layout is not None and layout.read is coco_captions:
        return _coco(document, path)
    raise wrong_file(path, "a Karpathy split or COCO captions file")


def _karpathy(document: Any, path: Path, split: str) -> Iterator[Example]:
    records = list(karpathy_images(document, path))
    for record in records:
        require(record.fields, {"split": str}, record.where)
    wanted = KARPATHY_SPLITS.get(split, (split,))
    present = dict.fromkeys(record.fields["split"] for record in records)
    if present.keys().isdisjoint(wanted):
        names = ", ".join(present)
        raise InputError(f"{path}: holds the splits {names}, but not {split!r}; give --split")
    own = [record for record in records if record.fields["split"] in wanted]
    gallery = tuple(record.image for record in own)
    for record in own:
        for sentence in record.fields["sentences"]:
            require(sentence, {"sentid": int}, record.where)
            yield _example(sentence["sentid"], sentence["raw"], record.image, gallery)


def _coco(document: Any, path: Path) -> Iterator[Example]:
    records = list(coco_captions(document, path))
    gallery = tuple(image["file_name"] for image in document.get("images") or ())
    for record in records:
        require(record.fields, {"id": int, "image_id": int}, record.where)
        yield _example(record.fields["id"], record.fields["caption"], record.image, gallery)


def _example(caption_id: int, caption: str, image: str, gallery: tuple[str, ...]) -> Example:
    return Example(
        example_id=caption_id,
        text=caption,
        images=(image,),
        target={"match": 1.0},
        gallery=gallery,
    )
