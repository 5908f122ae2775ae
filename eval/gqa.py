"""GQA: compositional questions about a photograph, one answer each."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from semvlp.errors import InputError
from semvlp.eval import scores
from semvlp.eval.annotations import read_document, require, unique, wrong_file
from semvlp.eval.forms import JsonArray
from semvlp.eval.submission import LeaderboardFile, checked
from semvlp.eval.task import Answer, Example, ExampleId, Head, Loss

# Questions of common traits are valid with any of the three (`belongs` in eval.py).
_COMMON_TRAITS = frozenset(("color", "material", "shape"))


class Gqa(LeaderboardFile):
    """Scored by the rule of GQA's eval.py: raw equality, balanced questions only.

    Ids are strings whose leading zeros matter: "01827492" and "1827492" are two questions.
    """

    name = "gqa"
    head: Head = "pooled"
    loss: Loss = "cross_entropy"
    metric = "accuracy"
    form = JsonArray(id_field="questionId", answer_field="prediction", id_type=str)

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Questions files; a file with `choices` in its name holds valid and plausible answers."""
        choices: dict[str, Any] = {}
        examples = []
        for path in sorted(paths, key=lambda path: "choices" not in path.name):
            document = read_document(path)
            if "choices" in path.name:
                choices |= _choices(document, path)
            else:
                examples += _questions(document, path, choices)
        if not examples:
            raise InputError("GQA needs a questions file; only choices were given")
        return unique(examples, paths)

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """Every answer of the training questions, in alphabetical order."""
        return sorted({answer for example in examples for answer in example.target})

    def score(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, float]:
        """Accuracy, `binary` and `open`, and what else the files allow to compute.

        `consistency` needs every entailed question among the examples, `validity` and
        `plausibility` the choices; `distribution` is no percentage and lower is better.
        """
        given = checked(self.ids(examples), answers, str)
        by_id = {e.example_id: answer for e, answer in zip(examples, given, strict=True)}
        balanced = [example for example in examples if example.meta["balanced"]]
        if not balanced:
            raise InputError("GQA scores balanced questions, but none of these is balanced")
        right = [by_id[example.example_id] in example.target for example in balanced]
        return {
            "accuracy": scores.percent(right),
            **scores.by_subset(balanced, right),
            **_consistency(examples, balanced, by_id),
            **_choice_scores(balanced, by_id),
            **_distribution(balanced, by_id),
        }


def _questions(document: Any, path: Path, choices: Mapping[str, Any]) -> list[Example]:
    if not isinstance(document, dict) or not document:
        raise wrong_file(path, "a GQA questions file")
    first = next(iter(document.values()))
    if not isinstance(first, dict) or "imageId" not in first:
        raise wrong_file(path, "a GQA questions file")
    return [_example(key, entry, choices, path) for key, entry in document.items()]


def _example(key: str, entry: Any, choices: Mapping[str, Any], path: Path) -> Example:
    where = f"{path}: question {key!r}"
    require(entry, {"question": str, "imageId": str, "isBalanced": bool}, where)
    target, meta = {}, {"balanced": entry["isBalanced"]}
    if "answer" in entry:
        fields = {"answer": str, "types": dict, "groups": dict, "entailed": list}
        require(entry, fields, where)
        target = {entry["answer"]: 1.0}
        meta |= _labelled_meta(key, entry, choices, where)
    return Example(
        example_id=key,
        text=entry["question"],
        images=(entry["imageId"],),
        target=target,
        meta=meta,
    )


def _labelled_meta(
    key: str, entry: Mapping[str, Any], choices: Mapping[str, Any], where: str
) -> dict[str, Any]:
    types, groups = entry["types"], entry["groups"]
    require(types, {"structural": str, "detailed": str}, f"{where}: types")
    require({"global": None, **groups}, {"global": (str, NoneType)}, f"{where}: groups")
    for other in entry["entailed"]:
        require({"entailed": other}, {"entailed": str}, where)
    meta: dict[str, Any] = {
        "subset": "open" if types["structural"] == "query" else "binary",
        "group": groups.get("global"),
        "entailed": tuple(other for other in entry["entailed"] if other != key),
    }
    if choices and entry["isBalanced"]:
        if key not in choices:
            raise InputError(f"{where}: the choices file must hold every balanced question")
        common = "Common" in types["detailed"]
        for name in ("valid", "plausible"):
            meta[name] = _COMMON_TRAITS if common else frozenset(choices[key][name])
    return meta


def _choices(document: Any, path: Path) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise wrong_file(path, "a GQA choices file")
    for key, entry in document.items():
        require(entry, {"valid": list, "plausible": list}, f"{path}: question {key!r}")
    return document


def _consistency(
    examples: Sequence[Example], balanced: Sequence[Example], by_id: Mapping[ExampleId, str]
) -> dict[str, float]:
    """Accuracy on what a right answer entails, averaged over right answers (0 without any)."""
    targets = {example.example_id: example.target for example in examples}
    chained = [example for example in balanced if example.meta["entailed"]]
    entailed = {other for example in chained for other in example.meta["entailed"]}
    if not chained or not entailed <= targets.keys():
        return {}
    means = [
        scores.percent(by_id[other] in targets[other] for other in example.meta["entailed"]) / 100
        for example in chained
        if by_id[example.example_id] in example.target
    ]
    return {"consistency": scores.percent(means or [0.0])}


def _choice_scores(balanced: Sequence[Example], by_id: Mapping[ExampleId, str]) -> dict[str, float]:
    names = {"validity": "valid", "plausibility": "plausible"}
    return {
        score: scores.percent(by_id[e.example_id] in e.meta[field] for e in balanced)
        for score, field in names.items()
        if field in balanced[0].meta
    }


def _distribution(balanced: Sequence[Example], by_id: Mapping[ExampleId, str]) -> dict[str, float]:
    gold: defaultdict[str, list[str]] = defaultdict(list)
    given: defaultdict[str, list[str]] = defaultdict(list)
    for example in balanced:
        if example.meta["group"] is not None:
            gold[example.meta["group"]] += example.target
            given[example.meta["group"]].append(by_id[example.example_id])
    return {"distribution": scores.distribution(gold, given)} if gold else {}
