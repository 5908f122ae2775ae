"""Predictions of tiny random networks: their order, their batches, their two passes."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from semvlp.errors import InputError, SemVLPError
from semvlp.eval.limits import Limits
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matching.score_matrix import score_matrix
from semvlp.eval.network import Network
from semvlp.eval.predict import answers_by_mode, predict, probabilities
from semvlp.eval.task import Example, Pass, Passes, Rank, Scores
from semvlp.eval.tasks.nlvr import Nlvr
from semvlp.eval.tasks.retrieval_ranks import image_names, mean_log_odds
from semvlp.eval.tasks.table import TASKS
from semvlp.names import EvalMode
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store

# Other batches mean other matrix products; float32 adds in another order.
TOLERANCE = 1e-5


@pytest.fixture
def store(shards: Path) -> Iterator[Store]:
    with open_store(shards) as opened:
        yield opened


def _read(name: str, official: dict[str, Path]) -> list[Example]:
    return TASKS[name].read([official[name]], split="test")


def _predict(
    network: Network, name: str, examples: list[Example], store: Store, mode: EvalMode = "single"
) -> np.ndarray:
    return predict(
        network.model,
        network.tokenizer,
        TASKS[name],
        examples,
        store,
        mode=mode,
        batch_size=network.batch_size,
        device="cpu",
        limits=network.limits,
    )


@pytest.mark.parametrize("name", ["vqa", "gqa", "nlvr2", "nlvr", "snli-ve"])
@pytest.mark.parametrize("mode", ["single", "two", "both"])
def test_batches_and_order_change_no_probability(
    name: str,
    mode: EvalMode,
    network: Callable[..., Network],
    official: dict[str, Path],
    store: Store,
) -> None:
    examples = _read(name, official)
    one = _predict(network(name, batch_size=1), name, examples, store, mode)
    many = _predict(network(name, batch_size=100), name, examples[::-1], store, mode)
    assert one.dtype == np.float32
    assert one.shape == (len(examples), len(network(name).labels))
    np.testing.assert_allclose(one, many[::-1], atol=TOLERANCE)
    assert np.ptp(one, axis=0).max() > 100 * TOLERANCE


@pytest.mark.parametrize("mode", ["single", "two", "both"])
def test_batches_change_no_probability_of_a_region(
    mode: EvalMode, network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    """Images with fewer regions than the largest of all have zeros behind theirs."""
    examples = _read("refcoco", official)
    one = _predict(network("refcoco", batch_size=1), "refcoco", examples, store, mode)
    many = _predict(network("refcoco", batch_size=9), "refcoco", examples, store, mode)
    np.testing.assert_allclose(one, many, atol=TOLERANCE)
    lookup = RegionLookup(store, examples, max_regions=100)
    counts = [len(boxes) for _, boxes, _, _ in lookup([e.images[0] for e in examples])]
    assert one.shape == (len(examples), max(counts))
    for row, count in zip(one, counts, strict=True):
        assert row[:count].sum() == pytest.approx(1, abs=TOLERANCE)
        assert not row[count:].any()


def test_probabilities_exclude_each_other_or_not(
    network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    """Cross-entropy tasks sum to one; VQA's labels have a probability each."""
    exclusive = _predict(network("nlvr2"), "nlvr2", _read("nlvr2", official), store)
    np.testing.assert_allclose(exclusive.sum(1), 1, atol=TOLERANCE)
    each = _predict(network("vqa"), "vqa", _read("vqa", official), store)
    assert abs(each.sum(1) - 1).max() > 0.01


def test_both_is_the_mean_of_the_passes(
    network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    examples, net = _read("nlvr2", official), network("nlvr2")
    single, two, both = (
        _predict(net, "nlvr2", examples, store, mode) for mode in ("single", "two", "both")
    )
    assert abs(single - two).max() > 0.001
    np.testing.assert_allclose(both, (single + two) / 2, atol=TOLERANCE)


def test_left_and_right_are_told_apart(
    network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    examples, net = _read("nlvr2", official), network("nlvr2")
    mirrored = [dataclasses.replace(e, images=e.images[::-1]) for e in examples]
    found = _predict(net, "nlvr2", examples, store)
    assert abs(found - _predict(net, "nlvr2", mirrored, store)).max() > 0.001


def test_limits_cut_text_and_regions(
    network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    examples, net = _read("nlvr", official), network("nlvr")
    whole = _predict(net, "nlvr", examples, store)
    for limits in (Limits(max_regions=1), Limits(max_text_length=3)):
        cut = _predict(dataclasses.replace(net, limits=limits), "nlvr", examples, store)
        assert abs(whole - cut).max() > 0.001


def test_the_model_is_left_as_it_was(
    network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    """Dropout is off while predicting and on again for the training that goes on."""
    examples, net = _read("nlvr", official), network("nlvr")
    net.model.train()
    first, second = (_predict(net, "nlvr", examples, store) for _ in range(2))
    assert (first == second).all()
    assert net.model.training
    assert all(parameter.requires_grad for parameter in net.model.parameters())


def test_missing_images_are_named_and_counted(
    network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    examples = _read("nlvr", official)
    lost = [dataclasses.replace(e, images=(f"gone-{e.images[0]}.x",)) for e in examples[:12]]
    with pytest.raises(InputError, match=r"lacks 12 of 18 .*gone-dev-1-1-3.x, \.\.\.\)") as caught:
        _predict(network("nlvr"), "nlvr", [*examples[12:], *lost], store)
    assert re.search(r"12 examples need, first 'dev-1-0-0.png'", str(caught.value))


def test_nan_is_an_error_and_no_answer(
    network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    """argmax and sorting put NaN first."""
    for name in ("nlvr", "retrieval"):
        net = network(name)
        with torch.no_grad():
            next(net.model.head.parameters())[0] = torch.nan
        with pytest.raises(SemVLPError, match="must be finite"):
            answers_by_mode(net, TASKS[name], _read(name, official), store, "single")


def test_answers_are_the_likeliest_labels(
    network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    examples, net = _read("snli-ve", official), network("snli-ve")
    found = answers_by_mode(net, TASKS["snli-ve"], examples, store, "both")
    assert list(found) == ["single", "two", "both"]
    for mode, answers in found.items():
        best = _predict(net, "snli-ve", examples, store, mode).argmax(1)
        assert answers == {e.example_id: net.labels[k] for e, k in zip(examples, best, strict=True)}


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_score_matrix_holds_every_pair(
    batch_size: int,
    network: Callable[..., Network],
    official: dict[str, Path],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every cell is what the pair gets when it is an example of its own."""
    block = 1 if batch_size == 3 else 64
    monkeypatch.setattr("semvlp.eval.matching.score_matrix.IMAGE_BLOCK", block)
    examples, net = _read("retrieval", official), network("retrieval", batch_size=batch_size)
    lookup = RegionLookup(store, examples, max_regions=100)
    matrix = score_matrix(net, examples, lookup, "two")
    assert matrix.shape == (4, 2)
    for column, name in enumerate(image_names(examples)):
        moved = [dataclasses.replace(e, images=(name,)) for e in examples]
        match = probabilities(net, TASKS["retrieval"], moved, lookup, "two")[:, 1]
        np.testing.assert_allclose(1 / (1 + np.exp(-matrix[:, column])), match, atol=TOLERANCE)


def test_mean_of_log_odds_is_that_of_the_probabilities() -> None:
    single, two = np.array([0.0, 2.0, -3.0]), np.array([1.0, -2.0, -3.0])
    mean = (1 / (1 + np.exp(-single)) + 1 / (1 + np.exp(-two))) / 2
    np.testing.assert_allclose(mean_log_odds([single, two]), np.log(mean / (1 - mean)), atol=1e-6)


def test_log_odds_do_not_tie_where_probabilities_do() -> None:
    odds = np.array([40.0, 41.0, -120.0, -121.0], np.float32)
    assert len(set(1 / (1 + np.exp(-odds[:2].astype(np.float64))))) == 1
    assert len(set(mean_log_odds([odds, odds]))) == 4


def test_a_task_says_itself_how_it_is_answered(
    network: Callable[..., Network], official: dict[str, Path], store: Store
) -> None:
    class Least(Nlvr):
        """The label with the highest probability of all passes is never given."""

        def run_pass(self, passes: Passes, mode: Pass) -> Scores:
            return 1 - super().run_pass(passes, mode)

        def mean(self, scores: Sequence[Scores]) -> Scores:
            return np.min(scores, axis=0)

    examples, net = _read("nlvr", official), network("nlvr")
    usual = answers_by_mode(net, TASKS["nlvr"], examples, store, "both")
    least = answers_by_mode(net, Least(), examples, store, "both")
    other = {"true": "false", "false": "true"}
    for mode in ("single", "two"):
        assert least[mode] == {key: other[answer] for key, answer in usual[mode].items()}
    lookup = RegionLookup(store, examples, max_regions=100)
    found = [
        probabilities(net, TASKS["nlvr"], examples, lookup, mode) for mode in ("single", "two")
    ]
    labels = np.array(net.labels)[(1 - np.max(found, axis=0)).argmax(1)]
    assert list(least["both"].values()) == labels.tolist()


def test_both_ranks_by_the_mean_probability(
    network: Callable[..., Network],
    official: dict[str, Path],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mean of the log-odds would put the first image first: 2 against 1.5."""
    passes = {"single": [5.0, 1.5], "two": [-1.0, 1.5]}
    monkeypatch.setattr(
        "semvlp.eval.predict.score_matrix",
        lambda network, examples, lookup, mode, **_: np.array([passes[mode]] * 4, np.float32),
    )
    examples = _read("retrieval", official)
    found = answers_by_mode(network("retrieval"), TASKS["retrieval"], examples, store, "both")
    ranks = {mode: answers[0] for mode, answers in found.items()}
    assert ranks == {"single": Rank(1, 0), "two": Rank(2, 0), "both": Rank(2, 0)}
