"""NLVR (2017), images: whether a sentence is true of a drawn scene, in six permutations."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.errors import InputError
from semvlp.eval.credits import Credits
from semvlp.eval.files.forms import CommaLines
from semvlp.eval.files.submission import unique
from semvlp.eval.metrics import consistency
from semvlp.eval.task import Answer, Example, ExampleId, Head, Loss
from semvlp.eval.tasks.base import BaseTask
from semvlp.shards.texts.annotation_files import require
from semvlp.shards.texts.official_files import read_lines, wrong_file

LABELS = ("false", "true")
PERMUTATIONS = 6
SPLITS = ("train", "dev", "test", "hidden")


class Nlvr(BaseTask):
    """Scored by the rule of lil-lab/nlvr nlvr/metrics_images.py."""

    name = "nlvr"
    head: Head = "pooled"
    loss: Loss = "cross_entropy"
    metric = "accuracy"
    fixed_labels = LABELS
    form = CommaLines(labels=LABELS)

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Read JSON lines whose identifier is `n-m`; each line speaks of six images.

        Identifiers do not name the split, image files do: `dev-1572-0-3.png`. It is taken from the
        record's own `split` where there is one, else from the file name (`dev.json`).
        """
        return unique((example for path in paths for example in _examples(path)), paths)

    def credits(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Credits]:
        """Return `accuracy` over images, `consistency` over sentences (right on all images)."""
        credits = super().credits(examples, answers)
        sentences = [example.meta["sentence"] for example in examples]
        return {**credits, "consistency": consistency(sentences, credits["accuracy"].values)}


def _examples(path: Path) -> Iterator[Example]:
    for number, record in read_lines(path):
        if number == 1 and str(record.get("identifier", "")).count("-") != 1:
            raise wrong_file(path, "NLVR JSON lines")
        where = f"{path}:{number}"
        require(record, {"identifier": str, "sentence": str}, where)
        if record["identifier"].count("-") != 1:
            raise InputError(f"{where}: 'identifier' must be n-m, got {record['identifier']!r}")
        if isinstance(record.get("label"), bool):  # JSON's own true and false
            record["label"] = str(record["label"]).lower()
        if "label" in record and record["label"] not in LABELS:
            raise InputError(f"{where}: 'label' must be true or false, got {record['label']!r}")
        yield from _permutations(record, _image_prefix(record, path))


def _image_prefix(record: Mapping[str, Any], path: Path) -> str:
    """Return the split as image files spell it; the official script cuts at the first dash."""
    stem = path.name.partition(".")[0]
    named = [word for word in re.split(r"[_-]", stem) if word in SPLITS]
    prefix = record.get("split", named[0] if len(named) == 1 else stem)
    if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z0-9_]+", prefix):
        raise InputError(
            f"{path}: NLVR images are named by their split, one of {', '.join(SPLITS)}, which must "
            f"be the name of the annotation file, e.g. dev.json; got {prefix!r}"
        )
    return prefix


def _permutations(record: Mapping[str, Any], prefix: str) -> Iterator[Example]:
    sentence = prefix, record["identifier"].split("-")[0]
    for k in range(PERMUTATIONS):
        image = f"{prefix}-{record['identifier']}-{k}"
        yield Example(
            example_id=f"{image}.png",
            text=record["sentence"],
            images=(image,),
            target={record["label"]: 1.0} if "label" in record else {},
            # Its six pictures are one scene in other orders, so they are no more independent.
            meta={"sentence": sentence, "cluster": sentence},
        )
