"""GQA: compositional questions about a photograph, one answer each."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

from semvlp.errors import InputError
from semvlp.eval import metrics
from semvlp.eval.credits import Credits
from semvlp.eval.files.forms import JsonArray
from semvlp.eval.files.submission import unique
from semvlp.eval.task import Answer, Example, ExampleId, Head, Loss
from semvlp.eval.tasks.base import BaseTask
from semvlp.eval.tasks.gqa_grounding import Map, grounding, read_attentions, read_scenes
from semvlp.shards.texts.annotation_files import require
from semvlp.shards.texts.official_files import Record, gqa_questions, read_document, wrong_file

log = logging.getLogger(__name__)

_YES_NO = ("verify", "logical")
# Operations that are no step of reasoning of their own (getStepsNum in eval.py).
_NO_STEP = ("exist", "query: name", "choose name")
# Questions of common traits are valid with any of the three (`belongs` in eval.py).
_COMMON_TRAITS = frozenset(("color", "material", "shape"))
# What more a labelled question tells; files of others leave it out.
_TOLD: dict[str, type] = {"types": dict, "groups": dict, "entailed": list}


class Gqa(BaseTask):
    """Scored by the rule of GQA's eval.py: raw equality, balanced questions only.

    Ids are strings whose leading zeros matter: "01827492" and "1827492" are two questions.
    """

    name = "gqa"
    head: Head = "pooled"
    loss: Loss = "cross_entropy"
    metric = "accuracy"
    form = JsonArray(id_field="questionId", answer_field="prediction", id_type=str)

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Read questions files, and beside them what more scores need, known by official names.

        A file with `choices` in its name holds valid and plausible answers; `sceneGraphs` and
        `attentions` together give grounding.
        """
        beside = _Beside()
        questions = [path for path in paths if not beside.read(path)]
        if not questions:
            raise InputError("GQA needs a questions file; only what goes beside it was given")
        examples = [e for path in questions for e in _questions(read_document(path), path, beside)]
        if not any(example.target for example in examples):
            _warn_of_server(paths)
        bare = [e.example_id for e in examples if e.target and "subset" not in e.meta]
        if bare:
            told = (
                "%d of %d questions, such as %s, have no types: no binary, open and tables of them"
            )
            log.warning(told, len(bare), len(examples), bare[0])
        return unique(examples, paths)

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """Return every answer of the training questions, in alphabetical order."""
        return sorted({answer for example in examples for answer in example.target})

    def warnings(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> list[str]:
        """Count spellings that cannot be equal, and answers but yes or no where only these fit."""
        odd = [a for a in map(str, answers.values()) if a != a.lower().strip().rstrip(".")]
        judged = [
            str(answers[e.example_id])
            for e in examples
            if e.meta.get("parts", {}).get("structural type", [""])[0] in _YES_NO
        ]
        other = [answer for answer in judged if answer not in ("yes", "no")]
        warnings = {
            f"{len(odd)} answers have capitals, a final dot or outer blanks, first {odd[:1]}; "
            "they count as wrong": odd,
            f"{len(other)} of {len(judged)} verify and logical questions get neither yes nor no, "
            f"first {other[:1]}": other,
        }
        return [warning for warning, reasons in warnings.items() if reasons]

    def counted(self, examples: Sequence[Example]) -> list[Example]:
        """Return the balanced questions."""
        balanced = [example for example in examples if example.meta["balanced"]]
        if not balanced:
            raise InputError("GQA scores balanced questions, but none of these is balanced")
        return balanced

    def credits(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Credits]:
        """Return `accuracy`, `binary` and `open`, and what else the files allow to compute.

        `consistency` needs every entailed question among the examples, `validity` and
        `plausibility` the choices, `grounding` scene graphs and attention maps.
        """
        balanced = self.counted(examples)
        return {
            **super().credits(examples, answers),
            **_consistency(examples, balanced, answers),
            **_choice_scores(balanced, answers),
            **_grounding(balanced),
        }

    def score(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, float]:
        """Return the means of `credits`, and `distribution`, which is no percentage.

        It is a distance: lower is better.
        """
        means = super().score(examples, answers)
        return {**means, **_distribution(self.counted(examples), answers)}


def _warn_of_server(paths: Sequence[Path]) -> None:
    """Say where unlabelled questions are not those that the server asks for."""
    if not any("submission" in path.name for path in paths):
        names = ", ".join(map(str, paths))
        log.warning("%s: the server takes answers to all of submission_all_questions.json", names)


@dataclass
class _Beside:
    """Files beside the questions."""

    choices: dict[str, Any] = field(default_factory=dict)
    scenes: dict[str, Any] = field(default_factory=dict)
    attentions: dict[str, Map] = field(default_factory=dict)

    def read(self, path: Path) -> bool:
        """Take over a file that is one of these; False where it is not."""
        if "choices" in path.name:
            self.choices |= _choices(read_document(path), path)
        elif "sceneGraphs" in path.name:
            self.scenes |= read_scenes(path)
        elif "attentions" in path.name:
            self.attentions |= read_attentions(path)
        else:
            return False
        return True


def _questions(document: Any, path: Path, beside: _Beside) -> list[Example]:
    first = next(iter(document.values()), None) if isinstance(document, dict) else None
    if not isinstance(first, dict) or "imageId" not in first:
        raise wrong_file(path, "a GQA questions file")
    return [_example(record, beside) for record in gqa_questions(document, path)]


def _example(record: Record, beside: _Beside) -> Example:
    key, entry, where = record.key, record.fields, record.where
    require(entry, {"imageId": str, "isBalanced": bool}, where)
    target, meta = {}, {"balanced": entry["isBalanced"]}
    if "answer" in entry:
        require(entry, {name: kind for name, kind in _TOLD.items() if name in entry}, where)
        target = {entry["answer"]: 1.0}
        meta |= _labelled_meta(key, entry, beside, where)
    return Example(
        example_id=key,
        text=entry["question"],
        images=(record.image,),
        target=target,
        meta=meta,
    )


def _labelled_meta(
    key: str, entry: Mapping[str, Any], beside: _Beside, where: str
) -> dict[str, Any]:
    types, groups, entailed = (entry.get(name) or kind() for name, kind in _TOLD.items())
    require({"global": None, **groups}, {"global": (str, NoneType)}, f"{where}: groups")
    for other in entailed:
        require({"entailed": other}, {"entailed": str}, where)
    meta: dict[str, Any] = {
        "group": groups.get("global"),
        "entailed": tuple(other for other in entailed if other != key),
    }
    if "types" in entry:
        require(types, {"structural": str, "detailed": str}, f"{where}: types")
        meta["subset"] = "open" if types["structural"] == "query" else "binary"
    if entry["isBalanced"]:
        if "types" in entry:
            meta["parts"] = {name: [value] for name, value in _kinds(entry, where).items()}
        meta |= _from_choices(key, entry, beside, where) if beside.choices else {}
        meta |= _from_attention(key, entry, beside, where) if beside.attentions else {}
    return meta


def _from_choices(
    key: str, entry: Mapping[str, Any], beside: _Beside, where: str
) -> dict[str, frozenset[str]]:
    if key not in beside.choices:
        raise InputError(f"{where}: the choices file must hold every balanced question")
    require(entry, {"types": dict}, where)
    common = "Common" in entry["types"]["detailed"]
    return {
        name: _COMMON_TRAITS if common else frozenset(beside.choices[key][name])
        for name in ("valid", "plausible")
    }


def _from_attention(
    key: str, entry: Mapping[str, Any], beside: _Beside, where: str
) -> dict[str, float]:
    if key not in beside.attentions:
        raise InputError(f"{where}: the attentions file must hold every balanced question")
    if entry["imageId"] not in beside.scenes:
        raise InputError(f"{where}: the scene graphs must hold image {entry['imageId']!r}")
    require(entry, {"annotations": dict}, where)
    scene = beside.scenes[entry["imageId"]]
    return {"grounding": grounding(entry, scene, beside.attentions[key])}


def _kinds(entry: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return the row of the question in each table of eval.py."""
    types = entry["types"]
    for step in entry.get("semantic", ()):
        require(step, {"operation": str, "argument": str}, f"{where}: semantic")
    steps = [f"{step['operation']}: {step['argument']}" for step in entry.get("semantic", ())]
    counted = sum(not any(name in step for name in _NO_STEP) for step in steps)
    return {
        "structural type": types["structural"],
        "semantic type": types.get("semantic", ""),
        "reasoning steps": f"{counted:2d}",
        "words": f"{len(entry['question'].split()):2d}",
    }


def _choices(document: Any, path: Path) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise wrong_file(path, "a GQA choices file")
    for key, entry in document.items():
        require(entry, {"valid": list, "plausible": list}, f"{path}: question {key!r}")
    return document


def _consistency(
    examples: Sequence[Example], balanced: Sequence[Example], given: Mapping[ExampleId, Answer]
) -> dict[str, Credits]:
    """Return the accuracy on what right answers entail, mean over these (0 without any)."""
    targets = {example.example_id: example.target for example in examples}
    chained = [example for example in balanced if example.meta["entailed"]]
    entailed = {other for example in chained for other in example.meta["entailed"]}
    if not chained or not entailed <= targets.keys():
        return {}
    right = [example for example in chained if given[example.example_id] in example.target]
    if not right:
        return {"consistency": metrics.of_examples(chained, [0.0] * len(chained))}
    means = [
        metrics.percent(given[other] in targets[other] for other in example.meta["entailed"]) / 100
        for example in right
    ]
    return {"consistency": metrics.of_examples(right, means)}


def _choice_scores(
    balanced: Sequence[Example], given: Mapping[ExampleId, Answer]
) -> dict[str, Credits]:
    names = {"validity": "valid", "plausibility": "plausible"}
    return {
        score: metrics.of_examples(
            balanced, [given[e.example_id] in e.meta[field] for e in balanced]
        )
        for score, field in names.items()
        if field in balanced[0].meta
    }


def _grounding(balanced: Sequence[Example]) -> dict[str, Credits]:
    if "grounding" not in balanced[0].meta:
        return {}
    values = [example.meta["grounding"] for example in balanced]
    # Boxes that overlap count twice, so there is no end at 1.
    return {"grounding": replace(metrics.of_examples(balanced, values), most=max(1.0, *values))}


def _distribution(
    balanced: Sequence[Example], answers: Mapping[ExampleId, Answer]
) -> dict[str, float]:
    gold: defaultdict[str, list[str]] = defaultdict(list)
    given: defaultdict[str, list[str]] = defaultdict(list)
    for example in balanced:
        if example.meta["group"] is not None:
            gold[example.meta["group"]] += example.target
            given[example.meta["group"]].append(str(answers[example.example_id]))
    return {"distribution": metrics.distribution(gold, given)} if gold else {}
