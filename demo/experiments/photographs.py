"""Photographs with captions: retrieval with and without pre-training, cross-validated.

A few hundred photographs of COCO, described by the detector of the drawn world, which knows colours
and edges and nothing of what photographs show: another one cannot be had offline. They are divided
into parts. Each part is scored once by networks that were trained on the captions of all others;
half of these start from nothing, the others from a pre-training on the same captions. Recall is
among the photographs of a part, and matching is how often the right photograph of a caption stands
above a wrong one. No setting was chosen by these.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semvlp import atomic, settings
from semvlp.demo.experiments import standalone
from semvlp.documents import from_json
from semvlp.eval.credits import Credits, difference
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.files.credits_file import CREDITS_NAME, read_credits
from semvlp.eval.tasks.table import load_task
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.maintenance.convert import join
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain

PARTS = 5
MODES = ("single", "two", "both")
SCORES = ("ir_r1", "ir_r5", "ir_r10", "tr_r1", "tr_r5", "tr_r10")
MATCHING = "matching"
REGIONS = 36
MODEL = (
    "model.preset=tiny",
    "model.cross_attention=tied",
    "model.dropout=0.1",
    f"data.max_regions={REGIONS}",
    "train.optimizer=muon",
    "train.threads=1",
    "train.batch_size=64",
)
PRETRAIN = (*MODEL, "model.vocab_size=2000", "train.lr=2e-3", "train.steps=1500")
FINETUNE = (*MODEL, "train.lr=1e-3", "train.epochs=5", "data.cache_images=1000")


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """What came out, and where it is written."""

    path: Path
    scores: Mapping[str, Any]
    """By mode and score: `without` and `with` pre-training and `gain`, each with its interval."""

    def sentence(self) -> str:
        """Return a table of all scores and the file that has them."""
        lines = [f"{'':<18}{'without':>22}{'with':>22}{'gain':>24}"]
        for mode, scores in self.scores.items():
            for name, row in scores.items():
                cells = (
                    "{:.1f} ({:.1f} to {:.1f})".format(row[start], *row[f"{start}_interval"])
                    for start in ("without", "with", "gain")
                )
                lines.append(f"{mode + ' ' + name:<18}" + "".join(f"{cell:>23}" for cell in cells))
        return "\n".join([*lines, f"Wrote {self.path}"])


def run_photographs(data: Path, out: Path) -> CrossValidated:
    """Run every stage; one that an earlier call has finished is not done again.

    Args:
        data: a directory with `images/` and `captions.json` in COCO's form.
    """
    images, regions = data / "images", out / "regions"
    chosen = ExtractSettings(
        detector="demo",
        settings=("shorter_side=240", "longer_side=400"),
        min_regions=REGIONS,
        max_regions=REGIONS,
        precision="auto",
    )
    extract(images, regions, chosen)
    captions = from_json((data / "captions.json").read_bytes())
    names = [image["id"] for image in captions["images"]]
    parts = [set(names[number::PARTS]) for number in range(PARTS)]
    pairs = [
        _evaluations(out / f"part-{number}", regions, captions, part)
        for number, part in enumerate(parts)
    ]
    without, with_ = (_pooled(runs) for runs in zip(*pairs, strict=True))
    scores = {
        mode: {name: _compared(credits, with_[mode][name]) for name, credits in own.items()}
        for mode, own in without.items()
    }
    atomic.write_json(out / "scores.json", scores)
    return CrossValidated(out / "scores.json", scores)


def _evaluations(folder: Path, regions: Path, captions: Any, part: set[int]) -> tuple[Path, Path]:
    """Return the evaluations on a part, without and with a pre-training on all others."""
    folder.mkdir(exist_ok=True)
    train, test = folder / "train.json", folder / "test.json"
    every = {image["id"] for image in captions["images"]}
    for path, images in ((train, every - part), (test, part)):
        atomic.write_json(path, _captions_of(captions, images), indent=None)
    join(regions, [train], folder / "shards", only_matched=True)
    config = settings.load(PretrainConfig, None, PRETRAIN)
    pretrain([folder / "shards"], folder / "pretrain", config)
    task, start = load_task("retrieval"), folder / "pretrain" / "last"
    # Both have the vocabulary of the pre-training.
    fresh = settings.load(FinetuneConfig, None, (*FINETUNE, f"model.tokenizer={start}"))
    known = settings.load(FinetuneConfig, None, FINETUNE)
    for name, init, chosen in (("without", None, fresh), ("with", start, known)):
        run = folder / f"finetune-{name}"
        finetune(task, [train], regions, init, run, chosen)
        options = EvalOptions(split="test", mode="both")
        evaluate(task, run / "last", [test], regions, folder / f"eval-{name}", options)
    return folder / "eval-without", folder / "eval-with"


def _captions_of(captions: Any, images: set[int]) -> dict[str, Any]:
    return {
        "images": [image for image in captions["images"] if image["id"] in images],
        "annotations": [one for one in captions["annotations"] if one["image_id"] in images],
    }


def _pooled(evaluations: Iterable[Path]) -> dict[str, dict[str, Credits]]:
    """Return the credits of all parts together, by mode and score."""
    parts: dict[str, dict[str, list[Credits]]] = {mode: defaultdict(list) for mode in MODES}
    for evaluation in evaluations:
        credits = read_credits(evaluation / CREDITS_NAME)
        for mode in MODES:
            for name in SCORES:
                parts[mode][name].append(credits[mode][name])
        parts["both"][MATCHING].append(_matching(evaluation, credits["both"]["ir_r1"]))
    return {
        mode: {name: _joined(credits) for name, credits in own.items()}
        for mode, own in parts.items()
    }


def _matching(evaluation: Path, recall: Credits) -> Credits:
    """Credit each caption with the share of wrong photographs that stand below the right one."""
    ranks = from_json((evaluation / "retrieval_test.json").read_bytes())["captions"]
    rank_of = {entry["caption_id"]: entry["rank"] for entry in ranks}
    wrong = len(set(recall.clusters)) - 1
    below = [1 - (rank_of[caption] - 1) / wrong for caption in recall.units]
    return Credits(below, recall.clusters, recall.units)


def _joined(parts: Sequence[Credits]) -> Credits:
    return Credits(
        np.concatenate([part.values for part in parts]),
        [cluster for part in parts for cluster in part.clusters],
        [unit for part in parts for unit in part.units],
    )


def _compared(without: Credits, with_: Credits) -> dict[str, Any]:
    gain = difference(without, with_)
    return {
        "without": without.percent,
        "without_interval": without.interval(),
        "with": with_.percent,
        "with_interval": with_.interval(),
        "gain": gain.mean,
        "gain_interval": gain.interval,
        "p": gain.p,
    }


if __name__ == "__main__":
    standalone.main(run_photographs, __doc__ or "", Path("runs/photographs"))
