"""explain.html: the words and regions that attend to each other, over the photograph.

T tokens, R regions, L = T + image tokens + R, N blocks, H heads, K head width. Boxes are xyxy in
pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from semvlp.atomic import write_text
from semvlp.eval.network import Network
from semvlp.eval.pages.attention import attended_blocks
from semvlp.eval.pages.gallery import Pictures, boxes_of, pictures, spread
from semvlp.eval.task import Example, Pass
from semvlp.model.attention import Attention
from semvlp.model.attention_weights import Call, watched
from semvlp.model.block import Block
from semvlp.model.packing import PairRegions
from semvlp.pages import render
from semvlp.shards.record import Regions
from semvlp.shards.stores.store import Store

PASSES: dict[Pass, str] = {"single": "single-stream", "two": "two-stream"}
# Regions whose words are listed: those that the words attend to most.
LISTED = 8


class Between(NamedTuple):
    """The attention between words and regions of one pair, mean over heads and blocks, or by them.

    In two-stream mode each row adds up to 1, less the attention that goes to an image token. In
    single-stream mode the attention to tokens or regions of the same kind is missing too.
    """

    to_regions: Tensor
    """[T, R] or [N, H, T, R] 0..1, from each token to each region."""
    to_words: Tensor
    """[R, T] or [N, H, R, T] 0..1, from each region to each token."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The places of tokens, image tokens and regions in the rows of a pair."""

    num_tokens: int
    num_image_tokens: int
    num_regions: int

    @property
    def num_image_rows(self) -> int:
        return self.num_image_tokens + self.num_regions


def between(network: Network, text: Sequence[int], regions: PairRegions, mode: Pass) -> Between:
    """Return the attention [T, R] and [R, T] of one pair, mean over heads and blocks.

    See `between_by_head`.
    """
    return mean_of(between_by_head(network, text, regions, mode))


def mean_of(by_head: Between) -> Between:
    """Return the mean [T, R] and [R, T] over blocks and heads."""
    return Between(*(weights.mean((0, 1)) for weights in by_head))


def between_by_head(
    network: Network, text: Sequence[int], regions: PairRegions, mode: Pass
) -> Between:
    """Return the attention [N, H, T, R] and [N, H, R, T] between words and regions of one pair.

    It is that of the blocks `attended_blocks`. Single-stream: self-attention; two-stream:
    cross-attention, zeros where there is none.
    """
    config, upper = network.model.config, list(attended_blocks(network).values())
    rows = _Rows(len(text), config.num_image_tokens, len(regions[0]))
    # The pair head wants two pairs. A pair sees nothing of the other one.
    copies = 2 if config.task_head == "pair" else 1
    with network.inference(), watched(upper) as (within, across):
        network.logits([text] * copies, [regions] * copies, mode)
        if mode == "single":
            matrices = [_in_one_stream(call, rows) for call in within]
        else:
            matrices = [_between_two(*both, rows) for both in zip(upper, across, strict=False)]
    if not matrices:
        heads = len(upper), config.num_attention_heads
        empty = torch.zeros(*heads, rows.num_tokens, rows.num_regions)
        return Between(empty, empty.transpose(2, 3))
    return Between(*(torch.stack(same) for same in zip(*matrices, strict=True)))


def write_explanation(
    path: Path,
    title: str,
    network: Network,
    examples: Sequence[Example],
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
        pairs=[
            _pair(example, name, draw)
            for example in spread(examples, count)
            for name in example.images
        ],
    )
    write_text(path, page)


def _in_one_stream(call: Call, rows: _Rows) -> Between:
    module, hidden, _ = call
    pair = hidden[: rows.num_tokens + rows.num_image_rows]
    weights = _weights(module, pair, pair)  # [H, L, L]
    first = rows.num_tokens + rows.num_image_tokens
    return Between(weights[:, : rows.num_tokens, first:], weights[:, first:, : rows.num_tokens])


def _between_two(block: Block, call: Call, rows: _Rows) -> Between:
    module, queries, keys = call
    other = block.region_cross_attention
    # With weights of its own each direction gets its keys alone, not as a part of the row.
    first = 0 if other is not None else rows.num_tokens
    text, image = queries[: rows.num_tokens], keys[first : first + rows.num_image_rows]
    to_image = _weights(module, text, image)
    to_words = _weights(other or module, image, text)
    images = rows.num_image_tokens
    return Between(to_image[:, :, images:], to_words[:, images:])


def _weights(module: Attention, queries: Tensor, keys: Tensor) -> Tensor:
    """Return the attention [H, queries, keys]."""
    if not len(queries) or not len(keys):
        return torch.zeros(module.num_heads, len(queries), len(keys))
    query = module.query(queries).view(len(queries), module.num_heads, -1).transpose(0, 1)
    key = module.key(keys).view(len(keys), module.num_heads, -1).transpose(0, 1)  # [H, S, K]
    logits = query @ key.transpose(1, 2) / query.shape[2] ** 0.5
    weights: Tensor = logits.float().softmax(2).cpu()
    return weights


def _pair(example: Example, name: str, draw: Pictures) -> dict[str, Any]:
    network, regions = draw.network, draw.lookup.sample(name).regions
    (ids,), (pair,) = network.encode([example.text]), draw.lookup([name])
    pieces = network.tokenizer.convert_ids_to_tokens(ids)
    _, picture = draw(example.text, name)
    return {
        "id": str(example.example_id),
        "text": example.text,
        "picture": picture,
        "modes": [
            {
                "name": PASSES[mode],
                "words": list(_words(pieces, regions, weights, draw)),
                "regions": list(_regions(pieces, regions, weights, draw)),
            }
            for mode in PASSES
            for weights in (between(network, ids, pair, mode),)
        ],
    }


def _words(
    pieces: Sequence[str], regions: Regions, attention: Between, draw: Pictures
) -> Iterator[dict[str, Any]]:
    """Yield each word piece, special tokens left out, with the boxes it attends to."""
    for piece, weights in list(zip(pieces, attention.to_regions.tolist(), strict=True))[1:-1]:
        boxes = boxes_of(regions, weights, draw.store.manifest)
        yield {"word": piece, "share": sum(weights), "boxes": boxes}


def _regions(
    pieces: Sequence[str], regions: Regions, attention: Between, draw: Pictures
) -> Iterator[dict[str, Any]]:
    """Yield the most attended regions, each with all word pieces by its attention to them."""
    most = attention.to_regions[1:-1].sum(0).argsort(descending=True, stable=True)[:LISTED].tolist()
    for index in most:
        weights = attention.to_words[index].tolist()
        top = max(weights, default=0.0) or 1.0
        only = [0.0] * len(attention.to_words)
        only[index] = 1.0
        yield {
            "label": boxes_of(regions, only, draw.store.manifest)[-1]["label"],
            "words": [
                {"word": piece, "share": weight / top}
                for piece, weight in zip(pieces, weights, strict=True)
            ],
        }
