"""The texts of a drawn world in the official forms of the benchmarks: values, no files."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from semvlp.demo.dataset.boxes_file import coco_boxes
from semvlp.demo.dataset.nlvr_scenes import structured_rep
from semvlp.demo.dataset.split_world import Fact, Reference, SplitWorld

_INFO = {
    "description": "SemVLP drawn world",
    "version": "1.0",
    "year": 2026,
    "contributor": "SemVLP",
    "url": "",
    "date_created": "",
}
_LICENSE = {"name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
_ANSWER_TYPES = {"exist": "yes/no", "compare": "yes/no", "relation": "yes/no", "count": "number"}
# GQA has no counting questions.
_GQA_TYPES = {
    "exist": ("verify", "obj"),
    "relation": ("verify", "rel"),
    "compare": ("compare", "attr"),
    "color": ("query", "attr"),
    "shape": ("query", "attr"),
}
_QUESTIONS_OF_A_PICTURE = 1000


def coco_captions(world: SplitWorld) -> dict[str, Any]:
    """Return COCO captions JSON of the numbered pictures."""
    pictures = [*world.scenes, *world.covered]
    captions = [
        (picture.number, text) for picture in pictures for text in world.captions[picture.image_id]
    ]
    return {
        "info": _INFO,
        "licenses": [{"id": 1, **_LICENSE}],
        "images": [
            {
                "id": picture.number,
                "file_name": f"{picture.image_id}.png",
                "width": picture.scene.width,
                "height": picture.scene.side,
                "license": 1,
            }
            for picture in pictures
        ],
        "annotations": [
            {"id": index, "image_id": number, "caption": text}
            for index, (number, text) in enumerate(captions, start=1)
        ],
    }


def vqa_questions(world: SplitWorld) -> dict[str, Any]:
    """Return VQA v2 questions JSON."""
    return {
        **_vqa_head(world),
        "task_type": "Open-Ended",
        "questions": [
            {"image_id": fact.picture.number, "question": fact.text, "question_id": question_id}
            for question_id, fact in _with_question_ids(world.questions)
        ],
    }


def vqa_annotations(world: SplitWorld) -> dict[str, Any]:
    """Return VQA v2 annotations JSON; all ten people give the answer that the scene has."""
    return {
        **_vqa_head(world),
        "annotations": [
            {
                "question_type": " ".join(fact.text.split()[:2]),
                "multiple_choice_answer": fact.answer,
                "answers": [
                    {"answer": fact.answer, "answer_confidence": "yes", "answer_id": index}
                    for index in range(1, 11)
                ],
                "image_id": fact.picture.number,
                "answer_type": _ANSWER_TYPES.get(fact.topic, "other"),
                "question_id": question_id,
            }
            for question_id, fact in _with_question_ids(world.questions)
        ],
    }


def gqa(world: SplitWorld) -> dict[str, Any]:
    """Return GQA questions JSON: the questions of kinds that GQA has, all of them balanced."""
    return {
        f"{question_id:010d}": _gqa_entry(fact, *_GQA_TYPES[fact.topic])
        for question_id, fact in _with_question_ids(world.questions)
        if fact.topic in _GQA_TYPES
    }


def gqa_statements(world: SplitWorld) -> dict[str, Any]:
    """Return the statements in the form of GQA, to be answered true or false.

    The semantic type of each, by which GQA gives an accuracy, is its topic.
    """
    return {
        f"{question_id:010d}": _gqa_entry(fact, "statement", fact.topic)
        for question_id, fact in _with_question_ids(world.statements)
    }


def nlvr2(world: SplitWorld) -> Iterator[dict[str, Any]]:
    """Yield NLVR2 JSON lines; the URLs are names of files, as pictures are in several pairs."""
    for fact in world.pairs:
        yield {
            "sentence": fact.text,
            "left_url": f"{fact.left.image_id}.png",
            "right_url": f"{fact.right.image_id}.png",
            "label": str(fact.holds),
            "identifier": fact.identifier,
        }


def nlvr(world: SplitWorld) -> Iterator[dict[str, Any]]:
    """Yield NLVR v1 JSON lines; `split` tells how the six pictures of a line begin."""
    for fact in world.nlvr:
        yield {
            "sentence": fact.text,
            "label": str(fact.holds).lower(),
            "identifier": fact.identifier,
            "split": world.split,
            "structured_rep": structured_rep(fact.scene),
        }


def snli_ve(world: SplitWorld) -> Iterator[dict[str, Any]]:
    """Yield SNLI-VE JSON lines; the premise in words is the first caption."""
    asked: dict[str, int] = defaultdict(int)
    for fact in world.hypotheses:
        image_id = fact.picture.image_id
        pair_id = f"{image_id}.png#0r{asked[image_id]}{fact.answer[0]}"
        asked[image_id] += 1
        yield {
            "annotator_labels": [fact.answer],
            "captionID": f"{image_id}.png#0",
            "gold_label": fact.answer,
            "pairID": pair_id,
            "sentence1": world.captions[image_id][0],
            "sentence2": fact.text,
            "Flickr30K_ID": f"{image_id}.png",
        }


def memes(world: SplitWorld) -> Iterator[dict[str, Any]]:
    """Yield rows as hateful memes have them: label 1 where picture and statement agree, else 0."""
    for number, fact in enumerate(world.statements, start=1):
        yield {
            "id": number,
            "img": f"img/{fact.picture.image_id}.png",
            "text": fact.text,
            "label": int(fact.answer == "true"),
        }


def instances(world: SplitWorld) -> dict[str, Any]:
    """Return the `instances.json` of RefCOCO: the things in the pictures that expressions name."""
    pictures = dict.fromkeys(one.picture for one in world.expressions)
    return coco_boxes((f"{picture.image_id}.png", picture.scene) for picture in pictures)


def refs(world: SplitWorld, boxes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the references of RefCOCO to the boxes of `instances`, all of one split."""
    image_ids = {image["file_name"]: image["id"] for image in boxes["images"]}
    things: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for thing in boxes["annotations"]:
        things[thing["image_id"]].append(thing)
    spoken: dict[int, list[tuple[int, Reference]]] = defaultdict(list)
    for sent_id, one in enumerate(world.expressions):
        image_id = image_ids[f"{one.picture.image_id}.png"]
        spoken[things[image_id][one.item]["id"]].append((sent_id, one))
    category_of = {thing["id"]: thing["category_id"] for thing in boxes["annotations"]}
    return [
        {
            "ref_id": ref_id,
            "ann_id": ann_id,
            "category_id": category_of[ann_id],
            "image_id": image_ids[f"{sentences[0][1].picture.image_id}.png"],
            "file_name": f"{sentences[0][1].picture.image_id}_{ann_id}.png",
            "split": world.split,
            "sent_ids": [sent_id for sent_id, _ in sentences],
            "sentences": [
                {"sent_id": sent_id, "sent": one.text, "raw": one.text, "tokens": one.text.split()}
                for sent_id, one in sentences
            ],
        }
        for ref_id, (ann_id, sentences) in enumerate(spoken.items())
    ]


def texts(world: SplitWorld) -> Iterator[dict[str, Any]]:
    """Yield all texts for pre-training, one object for each picture.

    Statements are questions with the answers `true` and `false`. The sentences of the NLVR2,
    NLVR v1 and SNLI-VE files are left to fine-tuning.
    """
    asked: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for fact in (*world.questions, *world.statements):
        entry = {"question": fact.text, "answers": {fact.answer: 1.0}}
        asked[fact.picture.image_id].append(entry)
    for image_id, captions in world.captions.items():
        yield {
            "image_id": image_id,
            "captions": [*captions, world.remarks[image_id]],
            "questions": asked[image_id],
        }


def _vqa_head(world: SplitWorld) -> dict[str, Any]:
    return {
        "info": _INFO,
        "license": _LICENSE,
        "data_type": "drawn",
        "data_subtype": world.split,
    }


def _with_question_ids(facts: Sequence[Fact]) -> Iterator[tuple[int, Fact]]:
    """Yield every question with an id: the number of its picture and a running number."""
    asked: dict[int, int] = defaultdict(int)
    for fact in facts:
        number = fact.picture.number
        yield number * _QUESTIONS_OF_A_PICTURE + asked[number], fact
        asked[number] += 1


def _gqa_entry(fact: Fact, structural: str, semantic: str) -> dict[str, Any]:
    return {
        "question": fact.text,
        "imageId": fact.picture.image_id,
        "isBalanced": True,
        "answer": fact.answer,
        "fullAnswer": fact.answer,
        "groups": {"global": fact.topic, "local": f"{fact.topic}-{fact.text}"},
        "types": {"detailed": fact.topic, "semantic": semantic, "structural": structural},
        "entailed": [],
        "equivalent": [],
        "semantic": [],
        "semanticStr": "",
        "annotations": {"question": {}, "answer": {}, "fullAnswer": {}},
    }
