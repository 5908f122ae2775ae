"""explain.html: the words and regions that attend to each other, over the photograph.

W whole words, R regions. Boxes are xyxy in pixels.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from semvlp.atomic import write_text
from semvlp.eval.network import Network
from semvlp.eval.pages.attention import attended_blocks
from semvlp.eval.pages.between import Between, between_by_head, by_words, chosen
from semvlp.eval.pages.gallery import (
    Pictures,
    box_of,
    pictures,
    referred,
    spread,
    strongest,
    verdict,
    whole_words,
)
from semvlp.eval.task import Answer, Example, ExampleId, Pass
from semvlp.model.packing import PairRegions
from semvlp.pages import render
from semvlp.shards.stores.store import Store

PASSES: dict[Pass, str] = {"single": "single-stream", "two": "two-stream"}
# Regions whose words are listed: those that the words attend to most.
LISTED = 8
DIGITS = 3


def write_explanation(
    path: Path,
    title: str,
    network: Network,
    examples: Sequence[Example],
    answers: Mapping[ExampleId, Answer],
    store: Store,
    images: Path | None,
    *,
    count: int,
) -> None:
    """Write a page with `count` examples, evenly spread over the split, in both modes.

    Args:
        images: where the photographs are; without them regions are shown on blank canvases.
    """
    draw = pictures(network, examples, store, images, "both")
    page = render(
        Path(__file__).with_name("explain.html"),
        title=title,
        layers=list(attended_blocks(network)),
        heads=network.model.config.num_attention_heads,
        pairs=[
            _pair(example, name, answers[example.example_id], draw)
            for example in spread(examples, count)
            for name in example.images
        ],
    )
    write_text(path, page)


def _pair(example: Example, name: str, answer: Answer, draw: Pictures) -> dict[str, Any]:
    network, regions = draw.network, draw.lookup.sample(name).regions
    (ids,), (pair,) = network.encode([example.text]), draw.lookup([name])
    words = whole_words(network.tokenizer.convert_ids_to_tokens(ids))
    places = [of_word for _, of_word in words]
    _, picture = draw(example.text, name)
    manifest = draw.store.manifest
    return {
        "id": str(example.example_id),
        "text": example.text,
        **verdict(example, answer),
        "picture": {**picture, "boxes": referred(example, answer)},
        "words": [word for word, _ in words],
        "boxes": [box_of(regions, index, manifest) for index in range(len(regions))],
        "modes": {PASSES[mode]: _views(network, ids, pair, places, mode) for mode in PASSES},
    }


def _views(
    network: Network,
    ids: Sequence[int],
    pair: PairRegions,
    words: Sequence[Sequence[int]],
    mode: Pass,
) -> dict[str, dict[str, Any]]:
    """Return what is drawn of each layer and head, by `LAYER HEAD`, from 1; 0 is the mean."""
    by_head = between_by_head(network, ids, pair, mode)
    layers = {0: None, **{n: index for index, n in enumerate(attended_blocks(network))}}
    heads = [None, *range(network.model.config.num_attention_heads)]
    return {
        f"{layer} {0 if head is None else head + 1}": _view(
            by_words(chosen(by_head, block, head), words)
        )
        for (layer, block), head in product(layers.items(), heads)
    }


def _view(attention: Between) -> dict[str, Any]:
    """Return what is drawn of the attention [W, R] and [R, W].

    Returns:
        `words`: for each what it gives to all regions, 0..1, and the regions that get most of it;
        `regions`: those that get most of all, and how much each gives to every word.
    """
    most = attention.to_regions.sum(0).argsort(descending=True, stable=True)[:LISTED].tolist()
    return {
        "words": [
            [round(sum(weights), DIGITS), _rounded(strongest(weights))]
            for weights in attention.to_regions.tolist()
        ],
        "regions": [[index, _of_most(attention.to_words[index].tolist())] for index in most],
    }


def _rounded(shares: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(index, round(share, DIGITS)) for index, share in shares]


def _of_most(weights: Sequence[float]) -> list[float]:
    """Return weights as shares of the highest one."""
    most = max(weights, default=0.0) or 1.0
    return [round(weight / most, DIGITS) for weight in weights]
