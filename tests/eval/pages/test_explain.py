"""Attention between words and regions: what the network computes, on a page."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from semvlp.eval.lookup import RegionLookup
from semvlp.eval.network import Network
from semvlp.eval.pages.attention import attended, attended_blocks
from semvlp.eval.pages.between import Between, between, between_by_head, by_words, chosen
from semvlp.eval.pages.explain import write_explanation
from semvlp.eval.pages.gallery import whole_words
from semvlp.eval.task import Answer, Example, ExampleId, Pass
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


def test_a_word_gives_the_mean_of_its_pieces_and_gets_their_sum() -> None:
    attention = Between(
        torch.tensor([[0.5, 0.5], [0.2, 0.4], [0.4, 0.8], [0.1, 0.3], [0.0, 1.0]]),
        torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.5, 0.1, 0.2, 0.2]]),
    )
    words = by_words(attention, [[1, 2], [3]])
    torch.testing.assert_close(words.to_regions, torch.tensor([[0.3, 0.6], [0.1, 0.3]]))
    torch.testing.assert_close(words.to_words, torch.tensor([[0.5, 0.4], [0.6, 0.2]]))


def test_one_block_and_one_head() -> None:
    by_head = Between(torch.rand(2, 3, 4, 5), torch.rand(2, 3, 5, 4))
    torch.testing.assert_close(chosen(by_head, 1, 2).to_words, by_head.to_words[1, 2])
    torch.testing.assert_close(
        chosen(by_head, None, 2).to_regions, by_head.to_regions[:, 2].mean(0)
    )
    torch.testing.assert_close(chosen(by_head, 0, None).to_words, by_head.to_words[0].mean(0))


def test_the_page_shows_both_modes_and_needs_nothing_else(
    network: Callable[..., Network], examples: list[Example], store: Store, tmp_path: Path
) -> None:
    net, path = network("vqa"), tmp_path / "explain.html"
    examples[0] = replace(examples[0], text="what is <b>it</b>, 1000?", target={"yes": 1.0})
    given: dict[ExampleId, Answer] = {e.example_id: "<i>no" for e in examples}
    write_explanation(path, "vqa, val", net, examples, given, store, None, count=2)
    page = path.read_text()
    assert page.count('class="card wide pair"') == 2
    assert "what is &lt;b&gt;it&lt;/b&gt;, 1000?" in page
    assert "answered <b>&lt;i&gt;no</b>, right is <b>yes</b>" in page
    assert page.count("single-stream: from each word") == 2
    assert page.count("two-stream: from the most attended regions") == 2
    assert page.count("<rect") > 2
    assert "##" not in page
    assert not re.search(r"https?://|<script src|<link|is <b>it|<i>no", page)


def test_the_page_holds_the_attention_of_every_layer_and_head(
    network: Callable[..., Network], examples: list[Example], store: Store, tmp_path: Path
) -> None:
    net, path = network("vqa"), tmp_path / "explain.html"
    given: dict[ExampleId, Answer] = {e.example_id: "no" for e in examples}
    write_explanation(path, "vqa, val", net, examples[:1], given, store, None, count=1)
    (data,) = re.findall(r'<script type="application/json">(.*)</script>', path.read_text())
    pair, layers = json.loads(data), list(attended_blocks(net))
    heads = net.model.config.num_attention_heads
    views = pair["modes"]["single-stream"]
    assert list(views) == [f"{layer} {head}" for layer in (0, *layers) for head in range(heads + 1)]
    assert path.read_text().count("<option") == len(layers) + heads + 2

    (text,) = net.encode([examples[0].text])
    (regions,) = RegionLookup(store, examples, max_regions=100)(examples[0].images)
    words = whole_words(net.tokenizer.convert_ids_to_tokens(text))
    assert pair["words"] == [word for word, _ in words]
    last = between_by_head(net, text, regions, "single").to_regions[-1, -1]  # [T, R]
    shares = [float(last[places].mean(0).sum()) for _, places in words]
    view = views[f"{layers[-1]} {heads}"]
    assert [share for share, _ in view["words"]] == pytest.approx(shares, abs=1e-3)
    strongest = [int(last[places].mean(0).argmax()) for _, places in words]
    assert [boxes[-1][0] for _, boxes in view["words"]] == strongest
