"""SNLI-VE: whether a photograph entails a sentence, contradicts it or leaves it open."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.errors import InputError
from semvlp.eval.files.forms import JsonLines
from semvlp.eval.files.submission import unique
from semvlp.eval.task import Example, Head, Loss
from semvlp.eval.tasks.base import BaseTask
from semvlp.shards.texts.annotation_files import require
from semvlp.shards.texts.official_files import read_lines, wrong_file

log = logging.getLogger(__name__)

# The order differs in every published code, so it is stored with a checkpoint and never assumed.
LABELS = ("entailment", "neutral", "contradiction")
# The generator, the released files and the README of necla-ml/SNLI-VE spell it differently.
IMAGE_FIELDS = ("Flickr30K_ID", "Flikr30kID", "Flickr30kID")


class SnliVe(BaseTask):
    """Accuracy over pairs with a gold label, and by label; it has no server and no scorer."""

    name = "snli-ve"
    head: Head = "pooled"
    loss: Loss = "cross_entropy"
    metric = "accuracy"
    fixed_labels = LABELS
    form = JsonLines(id_field="pairID", answer_field="label", labels=LABELS)

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Read JSON lines, but for pairs without a gold label or of Visual Genome, as SNLI-VE."""
        return unique((example for path in paths for example in _examples(path)), paths)


def _examples(path: Path) -> list[Example]:
    records = read_lines(path)
    if "pairID" not in records[0][1]:
        raise wrong_file(path, "SNLI-VE JSON lines")
    unlabelled = [number for number, record in records if record.get("gold_label") == "-"]
    foreign = [number for number, record in records if "vg_" in str(record.get("pairID"))]
    dropped = {*unlabelled, *foreign}
    if dropped:
        log.info(
            "%s: dropped %d pairs without a gold label and %d of Visual Genome, as SNLI-VE does",
            path,
            len(unlabelled),
            len(foreign),
        )
    return [
        _example(record, f"{path}:{number}") for number, record in records if number not in dropped
    ]


def _example(record: Mapping[str, Any], where: str) -> Example:
    require(record, {"pairID": str, "sentence2": str}, where)
    label = record.get("gold_label")
    if label is not None and label not in LABELS:
        raise InputError(
            f"{where}: 'gold_label' must be one of {', '.join(LABELS)}, got {label!r}; for labels "
            "of your own say --task table --columns image=Flickr30K_ID,text=sentence2,id=pairID"
        )
    names = [record[field] for field in IMAGE_FIELDS if field in record]
    if len(names) != 1 or not isinstance(names[0], str) or not names[0]:
        raise InputError(f"{where}: must name its image in one of {', '.join(IMAGE_FIELDS)}")
    return Example(
        example_id=record["pairID"],
        text=record["sentence2"],
        images=(names[0],),
        target={label: 1.0} if label else {},
        meta={"subset": label},
    )
