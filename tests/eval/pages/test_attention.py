"""Attention of the first token: it adds up, and it is what the network computes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from semvlp.eval.lookup import RegionLookup
from semvlp.eval.network import Network
from semvlp.eval.pages.attention import attended
from semvlp.eval.task import Pass
from semvlp.eval.tasks.table import TASKS
from semvlp.model.packing import PairRegions
from semvlp.shards.open import open_store


@pytest.fixture
def pair(official: dict[str, Path], shards: Path) -> Iterator[PairRegions]:
    examples = TASKS["vqa"].read([official["vqa"]])
    with open_store(shards) as store:
        yield RegionLookup(store, examples, max_regions=100)(["1"])[0]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vqa", {"cross_layers": 0}),
        ("vqa", {"cross_layers": 3}),
        ("vqa", {"cross_attention": "separate"}),
        ("vqa", {"cross_attention": "tied"}),
        ("vqa", {"image_token": "mean"}),
        ("nlvr2", {}),
        ("nlvr2", {"pair_head": "attention"}),
    ],
)
def test_weights_add_up(
    name: str, fields: dict[str, Any], network: Callable[..., Network], pair: PairRegions
) -> None:
    net = network(name, **fields)
    image = fields.get("image_token") == "mean"
    (text,) = net.encode(["what is it?"])
    single, two, both = (
        attended(net, text, pair, modes) for modes in (["single"], ["two"], ["single", "two"])
    )
    assert (len(both.tokens), len(both.regions)) == (len(text), len(pair[0]))
    assert float(two.tokens.sum()) == pytest.approx(1, abs=1e-5)
    if image:  # The row of the whole image has its share, which belongs to no region.
        assert 0 < float(two.regions.sum()) < 1
        assert 0 < float(single.tokens.sum() + single.regions.sum()) < 1
        return
    crossed = net.model.config.cross_layers > 0
    assert float(single.tokens.sum() + single.regions.sum()) == pytest.approx(1, abs=1e-5)
    assert float(two.regions.sum()) == pytest.approx(float(crossed), abs=1e-5)
    torch.testing.assert_close(both.tokens, (single.tokens + two.tokens) / 2)


def test_tied_weights_show_what_copies_of_them_show(
    network: Callable[..., Network], pair: PairRegions
) -> None:
    tied, shared = (network("vqa", cross_attention=kind) for kind in ("tied", "shared"))
    state = tied.model.state_dict()
    shared.model.load_state_dict(
        {
            name: state[name.replace(".cross_attention.", ".self_attention.")]
            for name in shared.model.state_dict()
        }
    )
    (text,) = tied.encode(["what is it?"])
    for mode in ("single", "two"):
        own, other = (attended(net, text, pair, [mode]) for net in (tied, shared))
        torch.testing.assert_close(own.tokens, other.tokens)
        torch.testing.assert_close(own.regions, other.regions)


@pytest.mark.parametrize("mode", ["single", "two"])
def test_weights_are_those_of_the_network(
    mode: Pass, network: Callable[..., Network], pair: PairRegions
) -> None:
    """Where only one region has a value, what comes out is its weight."""
    net = network("vqa", cross_layers=1)
    (text,) = net.encode(["what is it?"])
    seen = attended(net, text, pair, [mode])
    block = net.model.semvlp.encoder.blocks[-1]
    module = block.cross_attention if mode == "two" else block.self_attention
    found = [_weight_of(net, module, text, pair, mode, n) for n in range(len(pair[0]))]
    torch.testing.assert_close(torch.tensor(found), seen.regions, rtol=1e-4, atol=1e-5)


def _weight_of(
    net: Network,
    module: torch.nn.Module,
    text: list[int],
    pair: PairRegions,
    mode: Pass,
    region: int,
) -> float:
    """Attention that the network gives a region: its value is 1, all others are 0."""
    place = len(text) + region
    outputs: list[torch.Tensor] = []

    def one_hot(_: torch.nn.Module, __: object, value: torch.Tensor) -> torch.Tensor:
        marked = torch.zeros_like(value)
        marked[place] = 1
        return marked

    hooks = [
        module.value.register_forward_hook(one_hot),
        module.output.register_forward_pre_hook(lambda _, given: outputs.append(given[0])),
    ]
    with net.inference():
        net.logits([text], [pair], mode)
    for hook in hooks:
        hook.remove()
    return float(outputs[0][0].mean())
