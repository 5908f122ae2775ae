"""Attention between words and regions: what the network computes, on a page."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from semvlp.eval.lookup import RegionLookup
from semvlp.eval.network import Network
from semvlp.eval.pages.attention import attended
from semvlp.eval.pages.explain import between, write_explanation
from semvlp.eval.task import Example, Pass
from semvlp.eval.tasks.table import TASKS
from semvlp.model.packing import PairRegions
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store


@pytest.fixture
def store(shards: Path) -> Iterator[Store]:
    with open_store(shards) as opened:
        yield opened


@pytest.fixture
def examples(official: dict[str, Path]) -> list[Example]:
    return TASKS["vqa"].read([official["vqa"]])


@pytest.fixture
def pair(store: Store, examples: list[Example]) -> PairRegions:
    return RegionLookup(store, examples, max_regions=100)(["1"])[0]


@pytest.mark.parametrize("mode", ["single", "two"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cross_layers": 0},
        {"cross_attention": "tied"},
        {"cross_attention": "separate"},
        {"image_token": "mean"},
    ],
)
def test_the_first_token_gives_what_the_gallery_shows(
    fields: dict[str, Any], mode: Pass, network: Callable[..., Network], pair: PairRegions
) -> None:
    net = network("vqa", **fields)
    (text,) = net.encode(["what is it?"])
    found, shown = between(net, text, pair, mode), attended(net, text, pair, [mode])
    assert found.to_regions.shape == (len(text), len(pair[0]))
    assert found.to_words.shape == (len(pair[0]), len(text))
    torch.testing.assert_close(found.to_regions[0], shown.regions)
    if mode == "two":
        crossed = float(net.model.config.cross_layers > 0)
        assert found.to_words.sum(1).tolist() == pytest.approx([crossed] * len(pair[0]), abs=1e-5)


@pytest.mark.parametrize("fields", [{}, {"cross_attention": "separate"}])
def test_regions_give_words_what_the_network_computes(
    fields: dict[str, Any], network: Callable[..., Network], pair: PairRegions
) -> None:
    """Where only one token has a value, what comes out at a region is its weight."""
    net = network("vqa", cross_layers=1, **fields)
    (text,) = net.encode(["what is it?"])
    found = between(net, text, pair, "two").to_words
    block = net.model.semvlp.encoder.blocks[-1]
    module = block.region_cross_attention or block.cross_attention
    first = 0 if fields else len(text)
    for token in range(len(text)):
        outputs: list[torch.Tensor] = []

        def one_hot(_: object, __: object, value: torch.Tensor, token: int = token) -> torch.Tensor:
            return torch.zeros_like(value).index_fill(0, torch.tensor([token]), 1.0)

        hooks = [
            module.value.register_forward_hook(one_hot),
            module.output.register_forward_pre_hook(
                lambda _, given, outputs=outputs: outputs.append(given[0])
            ),
        ]
        with net.inference():
            net.logits([text], [pair], "two")
        for hook in hooks:
            hook.remove()
        weights = outputs[0][first : first + len(pair[0])].mean(1)
        torch.testing.assert_close(weights, found[:, token], rtol=1e-4, atol=1e-5)


def test_the_page_shows_both_modes_and_needs_nothing_else(
    network: Callable[..., Network], examples: list[Example], store: Store, tmp_path: Path
) -> None:
    net, path = network("vqa"), tmp_path / "explain.html"
    write_explanation(path, "vqa, val", net, examples, store, None, count=2)
    page = path.read_text()
    assert page.count('class="card wide pair"') == 2
    for example in examples[:1]:
        assert example.text in page
    assert page.count("single-stream: from each word") == 2
    assert page.count("two-stream: from the most attended regions") == 2
    assert page.count("<rect") > 2
    assert not re.search(r"https?://|<script|<link", page)
