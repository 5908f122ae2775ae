"""The gallery of a report: which answers it shows, and what it says of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from semvlp.eval.network import Network
from semvlp.eval.pages.gallery import REGIONS, cards, grouped, spread
from semvlp.eval.task import Answer, Example, ExampleId, Predictions, Rank, Referent
from semvlp.eval.tasks.table import TASKS
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store

NAMES = ("1", "2", "n1", "a", "b")


@pytest.fixture
def store(shards: Path) -> Iterator[Store]:
    with open_store(shards) as opened:
        yield opened


def examples_of(labels: list[str]) -> list[Example]:
    return [
        Example(
            example_id=f"pair {n}",
            text="there are two dogs",
            images=(NAMES[n % len(NAMES)],),
            target={label: 1.0} if label else {},
        )
        for n, label in enumerate(labels)
    ]


def test_answers_are_grouped_by_their_credit() -> None:
    examples = examples_of(["neutral", "entailment", "neutral"])
    given: dict[ExampleId, Answer] = {e.example_id: "neutral" for e in examples}
    groups = grouped(TASKS["snli-ve"], examples, given)
    assert {name: [e.example_id for e in found] for name, found in groups.items()} == {
        "Wrong answers": ["pair 1"],
        "Right answers": ["pair 0", "pair 2"],
    }
    assert list(grouped(TASKS["snli-ve"], examples[::2], given)) == ["Right answers"]
    assert list(grouped(TASKS["snli-ve"], examples_of(["", ""]), {})) == ["Answers"]


def test_some_are_shown_evenly_apart() -> None:
    examples = examples_of(["neutral"] * 20)
    shown = [examples.index(example) for example in spread(examples, 6)]
    assert shown == [0, 3, 6, 10, 13, 16]
    assert spread(examples[:2], 6) == examples[:2]


def test_a_card_of_an_expression_shows_what_was_chosen_and_what_is_right(
    network: Callable[..., Network], store: Store
) -> None:
    example = Example(example_id=1, text="two dogs", images=("a",), meta={"box": (0, 0, 10, 10)})
    given: dict[ExampleId, Answer] = {1: Referent(0, (0, 0, 10, 5))}
    (card,) = cards(
        {"All": [example]},
        network("refcoco"),
        [example],
        Predictions(given, None),
        store,
        None,
        "both",
    )["All"]
    assert card["answer"] == "0.50"
    annotated, chosen = card["pictures"][0]["boxes"]
    assert (annotated["dashed"], annotated["h"]) == (True, 10)
    assert (chosen["dashed"], chosen["h"]) == (False, 5)


@pytest.mark.parametrize(
    ("answer", "said"),
    [("neutral", ("answered", "neutral", "entailment")), (Rank(7, 0), None)],
    ids=["a label", "a rank"],
)
def test_a_card(
    answer: Answer,
    said: tuple[str, str, str] | None,
    network: Callable[..., Network],
    store: Store,
) -> None:
    net = network("retrieval" if isinstance(answer, Rank) else "snli-ve")
    (example,) = examples_of(["entailment"])
    given: dict[ExampleId, Answer] = {example.example_id: answer}
    (card,) = cards(
        {"All": [example]}, net, [example], Predictions(given, None), store, None, "both"
    )["All"]
    told: Any = (card["said"], card["answer"], card["wanted"])
    assert told == (said or ("its image stands at rank", "7", ""))
    assert [word["word"] for word in card["words"]] == ["there", "are", "two", "dogs"]
    shares = [word["share"] for word in card["words"]]
    assert (min(shares), max(shares)) == (0, 1)
    (picture,) = card["pictures"]
    assert 0 < len(picture["boxes"]) <= REGIONS
    weights = [box["share"] for box in picture["boxes"]]
    assert weights == sorted(weights)
    # The label of the box drawn on top, which is attended to most, is named first.
    assert picture["labels"][0] == picture["boxes"][-1]["label"]
    assert len(set(picture["labels"])) == len(picture["labels"])


def test_a_card_names_its_types_and_shows_what_was_retrieved(
    network: Callable[..., Network], store: Store, tmp_path: Path
) -> None:
    (example, other) = examples_of(["match", "match"])
    meta = {"subset": "unseen", "parts": {"category": ["counting", "<b>"]}}
    example, other = replace(example, images=("a",), meta=meta), replace(other, images=("b",))
    Image.new("RGB", (100, 100), "red").save(tmp_path / "b.png")
    given: dict[ExampleId, Answer] = {"pair 0": Rank(2, 0)}
    predictions = Predictions(given, None, {"pair 0": ["b", "a"]})
    groups = {"All": [example]}
    (card,) = cards(
        groups, network("retrieval"), [example, other], predictions, store, tmp_path, "both"
    )["All"]
    assert card["types"] == ["subset: unseen", "category: counting", "category: <b>"]
    first, second = card["retrieved"]
    assert (first["name"], first["right"]) == ("b", False)
    assert first["uri"].startswith("data:image/")
    assert (second["name"], second["right"], second["uri"]) == ("a", True, "")
