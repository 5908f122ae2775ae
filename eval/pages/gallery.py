"""Right and wrong answers to look at: the text, the photographs, their regions.

Boxes are xyxy in pixels of the original image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semvlp.eval.lookup import RegionLookup
from semvlp.eval.network import Network
from semvlp.eval.pages.attention import attended
from semvlp.eval.predict import passes_of
from semvlp.eval.task import (
    Answer,
    Box,
    Choice,
    Example,
    ExampleId,
    Predictions,
    Rank,
    Referent,
    Task,
)
from semvlp.eval.tasks.refcoco import overlap
from semvlp.extract.images.find import ImageFile, Refused, images_by_id
from semvlp.extract.preview import data_uri, label_of
from semvlp.model.tokenizer import CONTINUATION
from semvlp.names import EvalMode
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.record import NO_ATTRIBUTE, Regions
from semvlp.shards.stores.store import Store

# Cards of each group, spread evenly over the split.
CARDS = 12
# The most attended regions of an image that are drawn.
REGIONS = 5
MAX_WIDTH, JPEG_QUALITY = 480, 80
SMALL_WIDTH = 200


@dataclass(frozen=True, slots=True)
class Pictures:
    """Draws photographs with the regions that a prediction attends to."""

    network: Network
    lookup: RegionLookup
    store: Store
    files: Mapping[str, ImageFile]
    mode: EvalMode

    def __call__(self, text: str, name: str) -> tuple[list[tuple[str, float]], dict[str, Any]]:
        """Return word pieces with their attention, and the picture."""
        regions = self.lookup.sample(name).regions
        (ids,), (pair,) = self.network.encode([text]), self.lookup([name])
        attention = attended(self.network, ids, pair, passes_of(self.mode))
        pieces = self.network.tokenizer.convert_ids_to_tokens(ids)
        boxes = boxes_of(regions, attention.regions.tolist(), self.store.manifest)
        drawn = {
            **picture(regions, self.files.get(regions.image_id)),
            "boxes": boxes,
            # The most attended first, each once: many boxes hold the same thing.
            "labels": list(dict.fromkeys(box["label"] for box in reversed(boxes))),
        }
        return list(zip(pieces, attention.tokens.tolist(), strict=True)), drawn

    def small(self, name: str) -> dict[str, Any]:
        """Return a small picture without regions."""
        regions = self.lookup.sample(name).regions
        return picture(regions, self.files.get(regions.image_id), SMALL_WIDTH)


def cards(
    groups: Mapping[str, Sequence[Example]],
    network: Network,
    examples: Sequence[Example],
    predictions: Predictions,
    store: Store,
    images: Path | None,
    mode: EvalMode,
) -> dict[str, list[dict[str, Any]]]:
    """Make cards of some examples of each group, by its name."""
    draw = pictures(network, examples, store, images, mode)
    return {
        name: [
            {
                **_card(example, predictions.answers[example.example_id], draw),
                "retrieved": _retrieved(example, predictions, draw),
            }
            for example in spread(members, CARDS)
        ]
        for name, members in groups.items()
    }


def pictures(
    network: Network,
    examples: Sequence[Example],
    store: Store,
    images: Path | None,
    mode: EvalMode,
) -> Pictures:
    """Return what draws the pictures of some examples, over the photographs in `images`."""
    lookup = RegionLookup(store, examples, max_regions=network.limits.max_regions)
    files = images_by_id(images)
    return Pictures(network, lookup, store, files, mode)


def grouped(
    task: Task, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
) -> dict[str, list[Example]]:
    """Group examples into wrong and right answers, or one group without labels; none is empty."""
    if not any(example.target for example in examples):
        return {"Answers": list(examples)}
    right = [
        task.example_score(example, answers[example.example_id]) >= 0.5 for example in examples
    ]
    pairs = list(zip(examples, right, strict=True))
    groups = {
        "Wrong answers": [example for example, good in pairs if not good],
        "Right answers": [example for example, good in pairs if good],
    }
    return {name: members for name, members in groups.items() if members}


def spread(members: Sequence[Example], wanted: int) -> list[Example]:
    """Return so many of them, evenly apart."""
    count = min(wanted, len(members))
    return [members[len(members) * index // count] for index in range(count)]


def _card(example: Example, answer: Answer, draw: Pictures) -> dict[str, Any]:
    drawn = [draw(example.text, name) for name in example.images]
    pictures = [picture for _, picture in drawn]
    words = _words([words for words, _ in drawn])
    if boxes := referred(example, answer):
        pictures = [{**picture, "boxes": boxes} for picture in pictures]
    return {
        "id": str(example.example_id),
        "types": _types(example),
        "words": words,
        "pictures": pictures,
        **verdict(example, answer),
    }


def _types(example: Example) -> list[str]:
    """Return the subset and the rows of the tables that an example is counted in."""
    subset = example.meta.get("subset")
    rows = [f"{table}: {row}" for table, of in example.meta.get("parts", {}).items() for row in of]
    return [*([] if subset is None else [f"subset: {subset}"]), *rows]


def _retrieved(example: Example, predictions: Predictions, draw: Pictures) -> list[dict[str, Any]]:
    """Return small pictures of what was retrieved, and which is the right one."""
    names = predictions.retrieved.get(example.example_id, ())
    return [{**draw.small(name), "right": name in example.images} for name in names]


def verdict(example: Example, answer: Answer) -> dict[str, str]:
    """Return an answer in words: what was `said` and `answer`, and what was `wanted`, if known."""
    if isinstance(answer, Rank):
        return {"said": "its image stands at rank", "answer": _said(answer), "wanted": ""}
    if isinstance(answer, Referent):
        return {
            "said": "chose the solid box; its IoU with the dashed, annotated one is",
            "answer": f"{overlap(answer.box, example.meta['box']):.2f}",
            "wanted": "",
        }
    best = sorted(example.target, key=lambda label: -example.target[label])
    return {"said": "answered", "answer": _said(answer), "wanted": ", ".join(best[:3])}


def referred(example: Example, answer: Answer) -> list[dict[str, Any]]:
    """Return the annotated and the chosen box of a referring expression; none for other answers."""
    if not isinstance(answer, Referent):
        return []
    annotated = _plain(example.meta["box"], "annotated", dashed=True)
    return [annotated, _plain(answer.box, "chosen")]


def _plain(box: Box, label: str, *, dashed: bool = False) -> dict[str, Any]:
    x, y, width, height = box
    return {"x": x, "y": y, "w": width, "h": height, "label": label, "share": 1, "dashed": dashed}


def _said(answer: str | Rank | Choice) -> str:
    match answer:
        case Rank(rank=rank):
            return str(rank)
        case Choice(label, probability) if probability is not None:
            return f"{label} ({probability:.0%})"
        case Choice(label):
            return label
    return answer


def _words(readings: Sequence[Sequence[tuple[str, float]]]) -> list[dict[str, Any]]:
    """Return whole words; `share` is 0 for the least, 1 for the most attended one.

    The special tokens draw much attention and are left out.
    """
    words = whole_words([piece for piece, _ in readings[0]])
    weights = [
        sum(reading[place][1] for reading in readings for place in places) for _, places in words
    ]
    least = min(weights, default=0.0)
    span = max(weights, default=1.0) - least or 1.0
    return [
        {"word": word, "share": (weight - least) / span}
        for (word, _), weight in zip(words, weights, strict=True)
    ]


def whole_words(pieces: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Put words together from the pieces of a text, the special tokens at both ends left out.

    Returns:
        Each word with the places of its pieces.
    """
    words: list[tuple[str, list[int]]] = []
    for place, piece in list(enumerate(pieces))[1:-1]:
        if piece.startswith(CONTINUATION) and words:
            word, places = words.pop()
            words.append((word + piece.removeprefix(CONTINUATION), [*places, place]))
        else:
            words.append((piece, [place]))
    return words


def boxes_of(
    regions: Regions, weights: Sequence[float], manifest: Manifest
) -> list[dict[str, Any]]:
    """Return the most attended boxes, the most attended one last; `share` is 0..1 of it."""
    return [
        {**box_of(regions, index, manifest), "share": share} for index, share in strongest(weights)
    ]


def strongest(weights: Sequence[float]) -> list[tuple[int, float]]:
    """Return the places and shares, 0..1 of the highest one, of the highest weights, it last."""
    order = sorted(range(len(weights)), key=lambda index: weights[index])[-REGIONS:]
    most = max(weights, default=1.0) or 1.0
    return [(index, weights[index] / most) for index in order]


def box_of(regions: Regions, index: int, manifest: Manifest) -> dict[str, Any]:
    """Return the corner, the size and the name of a region."""
    x1, y1, x2, y2 = map(float, regions.boxes[index])
    label = region_label(regions, index, manifest.object_labels, manifest.attribute_labels)
    return {"x": x1, "y": y1, "w": x2 - x1, "h": y2 - y1, "label": label}


def region_label(
    regions: Regions, index: int, objects: Sequence[str], attributes: Sequence[str]
) -> str:
    """Return the name of a region's class after that of its attribute, where it has one."""
    words = [label_of(objects, int(regions.object_ids[index]))]
    if regions.attribute_ids[index] != NO_ATTRIBUTE:
        words.insert(0, label_of(attributes, int(regions.attribute_ids[index])))
    return " ".join(words)


def picture(regions: Regions, file: ImageFile | None, max_width: int = MAX_WIDTH) -> dict[str, Any]:
    """Return the photograph of regions with its name and size, without any box.

    Args:
        file: the photograph; without it, or where it cannot be read, there is no `uri`.
    """
    try:
        uri = data_uri(file, max_width=max_width, quality=JPEG_QUALITY) if file else ""
    except Refused:
        uri = ""
    return {
        "name": regions.image_id,
        "width": regions.width,
        "height": regions.height,
        "uri": uri,
    }
