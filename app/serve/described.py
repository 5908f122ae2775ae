"""A reply as plain values: answers, regions, and how strongly words and regions attend.

R regions, W whole words. Boxes are xyxy in pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from semvlp.app.assistant import Assistant
from semvlp.app.reply import Reply
from semvlp.app.serve.album import Vocabulary
from semvlp.errors import ConfigError
from semvlp.eval.pages.attention import attended_blocks
from semvlp.eval.pages.between import by_words, chosen
from semvlp.eval.pages.gallery import region_label, whole_words
from semvlp.shards.record import Regions

DIGITS = 4
# What goes with a photograph, by the task of a checkpoint; of other tasks it is a question.
TEXTS = {
    "nlvr": "statement",
    "nlvr2": "statement",
    "snli-ve": "statement",
    "retrieval": "captions",
}


def checkpoint(name: str, assistant: Assistant) -> dict[str, Any]:
    """Return what a page must know of a checkpoint to ask it."""
    return {
        "name": name,
        "task": assistant.task,
        "text": TEXTS.get(assistant.task, "question"),
        "photos": assistant.photos_per_text,
        "mode": assistant.mode,
        "layers": list(attended_blocks(assistant.network)),
        "heads": assistant.network.model.config.num_attention_heads,
    }


def reply(
    given: Reply, vocabularies: Sequence[Vocabulary], *, layer: int | None, head: int | None
) -> dict[str, Any]:
    """Return a reply with the attention of a layer and a head, of all where none is named.

    Args:
        vocabularies: of the regions of each photograph.
        layer: from 1.
        head: from 1.

    Raises:
        ConfigError: there is no such layer or head.
    """
    network = given.network
    (ids,) = network.encode([given.text])
    words = whole_words(network.tokenizer.convert_ids_to_tokens(ids))
    layers, heads = list(attended_blocks(network)), network.model.config.num_attention_heads
    if layer not in (None, *layers) or head not in (None, *range(1, heads + 1)):
        raise ConfigError(
            f"the layer must be one of {', '.join(map(str, layers))} and the head 1 to {heads}, "
            f"got {layer} and {head}"
        )
    block = None if layer is None else layers.index(layer)
    between = [
        chosen(by_head, block, None if head is None else head - 1)
        for by_head in given.attention_by_head
    ]
    of_words = [by_words(one, [places for _, places in words]) for one in between]
    to_regions = [_rounded(one.to_regions) for one in of_words]  # [W, R] of each photograph
    return {
        "text": given.text,
        "answers": [answer._asdict() for answer in given.answers],
        "mode": given.mode,
        "layer": layer,
        "head": head,
        "words": [
            {"word": word, "regions": [of_photo[index] for of_photo in to_regions]}
            for index, (word, _) in enumerate(words)
        ],
        "photos": [
            _photo(regions, vocabulary, _rounded(one.to_regions[0]), _rounded(by_word.to_words))
            for regions, vocabulary, one, by_word in zip(
                given.regions, vocabularies, between, of_words, strict=True
            )
        ],
    }


def _photo(
    regions: Regions,
    vocabulary: Vocabulary,
    looked_at: Sequence[float],
    to_words: Sequence[Sequence[float]],
) -> dict[str, Any]:
    """Return the regions of a photograph that the network saw.

    Args:
        looked_at: [R] what the first token, which the answer is read from, gives to each.
        to_words: [R, W] what each gives to each word.
    """
    return {
        "width": regions.width,
        "height": regions.height,
        "regions": [
            {
                "box": [round(float(edge), 1) for edge in regions.boxes[index]],
                "label": region_label(regions, index, *vocabulary),
                "confidence": round(float(regions.object_conf[index]), DIGITS),
                "looked_at": share,
                "words": words,
            }
            for index, (share, words) in enumerate(zip(looked_at, to_words, strict=True))
        ],
    }


def _rounded(weights: Tensor) -> list[Any]:
    rounded: list[Any] = weights.to(torch.float64).round(decimals=DIGITS).tolist()
    return rounded
