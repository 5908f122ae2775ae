"""NLVR2: whether a sentence is true of two photographs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.errors import InputError, shown
from semvlp.eval.credits import Credits
from semvlp.eval.files.forms import CommaLines
from semvlp.eval.files.submission import unique
from semvlp.eval.metrics import consistency
from semvlp.eval.task import Answer, Example, ExampleId, Head, Loss
from semvlp.eval.tasks.base import BaseTask
from semvlp.shards.texts.annotation_files import read_text, require
from semvlp.shards.texts.official_files import read_lines, wrong_file

LABELS = ("False", "True")


class Nlvr2(BaseTask):
    """Scored by the rules of lil-lab/nlvr nlvr2/eval/metrics.py and nlvr2/data/filter_data.py."""

    name = "nlvr2"
    head: Head = "pair"
    loss: Loss = "cross_entropy"
    metric = "accuracy"
    fixed_labels = LABELS
    form = CommaLines(labels=LABELS)

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Read JSON lines whose identifier is `split-set-pair-sentence`.

        The images are named after the pair, as those that the authors give out, unless `left_url`
        and `right_url` are plain names of files.
        A `.txt` file holds categories of sentences (nlvr2/util/annotated_dev_examples.txt); scores
        by category are then part of the report.
        """
        texts = [path for path in paths if path.suffix == ".txt"]
        records = [record for path in paths if path not in texts for record in _records(path)]
        if not records:
            raise InputError("NLVR2 needs its JSON lines; only categories were given")
        categories = {name: kinds for path in texts for name, kinds in _categories(path).items()}
        subsets = _subsets(records)
        return unique((_example(record, subsets, categories) for record in records), paths)

    def credits(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Credits]:
        """Return `accuracy`, `consistency`, and `balanced` and `unbalanced` if such pairs exist.

        A sentence is consistent when it is judged right on every pair of photographs it is used
        with. Balanced are the pairs that occur with both labels, unbalanced those that occur more
        than once with one label.
        """
        credits = super().credits(examples, answers)
        sentences = [example.meta["sentence"] for example in examples]
        return {**credits, "consistency": consistency(sentences, credits["accuracy"].values)}


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, record in read_lines(path):
        if number == 1 and str(record.get("identifier", "")).count("-") != 3:
            raise wrong_file(path, "NLVR2 JSON lines")
        where = f"{path}:{number}"
        fields = [name for name in ("left_url", "right_url") if name in record]
        require(record, dict.fromkeys(["identifier", "sentence", *fields], str), where)
        if record["identifier"].count("-") != 3:
            raise InputError(
                f"{where}: 'identifier' must be split-set-pair-sentence, "
                f"got {record['identifier']!r}"
            )
        if isinstance(record.get("label"), bool):  # JSON's own true and false
            record["label"] = str(record["label"])
        if "label" in record and record["label"] not in LABELS:
            raise InputError(f"{where}: 'label' must be True or False, got {record['label']!r}")
        records.append(record)
    return records


def _subsets(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Tell for pairs that occur more than once, by identifier: balanced or unbalanced."""
    uses = defaultdict(list)
    for record in records:
        if {"left_url", "right_url", "label"} <= record.keys():
            uses[record["left_url"], record["right_url"]].append(record)
    return {
        record["identifier"]: "balanced" if len({r["label"] for r in same}) > 1 else "unbalanced"
        for same in uses.values()
        if len(same) > 1
        for record in same
    }


def _categories(path: Path) -> dict[str, list[str]]:
    """Read blocks of a sentence and its `* category` lines; some have none."""
    categories = {}
    for block in read_text(path).replace("\r\n", "\n").split("\n\n"):
        sentence, *lines = block.strip("\n").split("\n")
        if not all(line.startswith("* ") for line in lines):
            raise InputError(f"{path}: must hold `* category` lines below {shown(sentence)}")
        categories[sentence] = [line.removeprefix("* ") for line in lines]
    return categories


def _example(
    record: Mapping[str, Any],
    subsets: Mapping[str, str],
    categories: Mapping[str, Sequence[str]],
) -> Example:
    split, group, pair, sentence = record["identifier"].split("-")
    urls = [record.get(f"{side}_url", "") for side in ("left", "right")]
    images = tuple(
        Path(url).stem
        if Path(url).suffix and "/" not in url
        else f"{split}-{group}-{pair}-img{side}"
        for side, url in enumerate(urls)
    )
    return Example(
        example_id=record["identifier"],
        text=record["sentence"],
        images=images,
        target={record["label"]: 1.0} if "label" in record else {},
        meta={
            "sentence": (split, group, sentence),
            "subset": subsets.get(record["identifier"]),
            "parts": {"category": categories.get(record["sentence"], ())} if categories else {},
        },
    )
