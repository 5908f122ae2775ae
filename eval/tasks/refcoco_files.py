"""Files of referring expressions: the official pickles, and the forms of JSON that others made.

- lichengunc/refer: `refs(unc).p`, `refs(umd).p`, `refs(google).p`, a list of references with their
  sentences, pickled by Python 2, and `instances.json` with boxes and images; the list as JSON too.
- lichengunc/MAttNet (tools/prepro.py): `data.json` with `refs`, `images`, `sentences`.
- ashkamath/mdetr (scripts/fine-tuning/refexp_coco_format.py): `finetune_refcoco_val.json`, COCO
  detection with an image, its `caption` and one box for each expression.
- QwenLM/Qwen-VL (eval_mm/evaluate_grounding.py): JSON lines of `image`, `sent`, `bbox`; and
  shikras/shikra (mllm/dataset/single_image_dataset/rec.py): `img_path`, `expression`, `bbox`. Their
  boxes are xyxy, all others x, y, width, height.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from semvlp.archives import gunzip
from semvlp.errors import InputError, shown
from semvlp.eval.files.forms import box_of, four_numbers
from semvlp.eval.task import Example
from semvlp.shards.formats import safe_pickle
from semvlp.shards.texts.annotation_files import GZIP_MAGIC, first_has, parse, read_text, require
from semvlp.shards.texts.official_files import objects, wrong_file

INSTANCES = "instances.json"
REFERRED = "referred"
# How pickles begin: protocol 2 and later, and a list of protocol 0 or 1.
PICKLED = (b"\x80", b"(", b"]")
IMAGE_FIELDS, TEXT_FIELDS = ("image", "img_path"), ("sent", "expression")


class Expression(NamedTuple):
    """An example and the split it belongs to, None where its file does not say."""

    split: str | None
    example: Example


def read_expressions(paths: Sequence[Path], split: str) -> Iterator[Example]:
    """Yield the expressions of a split.

    References want `instances.json` among `paths`, or beside their own file.

    Args:
        split: of files that hold several: `train`, `val`, `testA`, `testB`, `test`.

    Raises:
        InputError: another file, a split that is not there, a reference without a box or whose box
            is a crowd's, an empty sentence; names file and id.
    """
    documents = {path: _document(path) for path in paths}
    instances = [path for path, document in documents.items() if _is_instances(document)]
    rest = [path for path in paths if path not in instances]
    if not rest:
        raise wrong_file(instances[0], f"given together with a refs(...).p: it is an {INSTANCES}")
    boxes = Instances()
    for path in instances:
        boxes.add(documents[path], path)
    for path in rest:
        yield from _of_split(list(_expressions(documents[path], path, boxes)), split, path)


def instances_beside(paths: Sequence[Path]) -> list[Path]:
    """Return the `instances.json` that `read_expressions` takes because they lie beside a file."""
    near = [path for path in paths if path.with_name(INSTANCES).is_file()]
    documents = [_document(path) for path in paths] if near else []
    if any(_is_instances(document) for document in documents):
        return []
    of_path = zip(paths, documents, strict=False)
    wanting = [p for p, document in of_path if first_has(document, "ref_id", "sentences")]
    return list(dict.fromkeys(p.with_name(INSTANCES) for p in wanting if p in near))


@dataclass(frozen=True, slots=True)
class Instances:
    """What `instances.json` says of boxes, images and categories, by their ids."""

    boxes: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    images: dict[int, str] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)

    def add(self, document: Mapping[str, Any], path: Path) -> None:
        """Take what a file says.

        Raises:
            InputError: it is no such file; names the entry.
        """
        named = {"categories": [], **document}
        require(named, {"images": list, "annotations": list, "categories": list}, str(path))
        for number, image in enumerate(named["images"], start=1):
            require(image, {"id": int, "file_name": str}, f"{path}: image {number}")
            self.images[image["id"]] = image["file_name"]
        for number, entry in enumerate(named["annotations"], start=1):
            require(entry, {"id": int, "image_id": int}, f"{path}: annotation {number}")
            self.boxes[entry["id"]] = entry
        for number, entry in enumerate(named["categories"], start=1):
            require(entry, {"id": int, "name": str}, f"{path}: category {number}")
            self.categories[entry["id"]] = entry["name"]


def _document(path: Path) -> Any:
    try:
        data = path.read_bytes()
        data = gunzip(data) if data.startswith(GZIP_MAGIC) else data
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if data.startswith(PICKLED):
        refs = safe_pickle.loads(data, str(path))
        if not first_has(refs, "ref_id", "sentences"):
            raise InputError(f"{path}: must hold a list of references, as refs(unc).p does")
        return refs
    return parse(read_text(path), path)


def _is_instances(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and first_has(document.get("annotations"), "bbox", "image_id")
        and not first_has(document.get("images"), "caption")
    )


def _expressions(document: Any, path: Path, instances: Instances) -> Iterator[Expression]:
    """Yield all expressions of a file, whichever form it has."""
    if isinstance(document, dict) and first_has(document.get("images"), "caption"):
        return _mdetr(document, path)
    if isinstance(document, dict) and first_has(document.get("refs"), "ref_id", "sent_ids"):
        return _mattnet(document, path)
    if first_has(document, "ref_id", "sentences"):
        return _refer(document, path, instances if instances.boxes else _beside(path))
    records = list(objects(document, path))
    if records and isinstance(records[0].fields, dict) and "bbox" in records[0].fields:
        return _lines((record.where, record.fields) for record in records)
    raise wrong_file(path, "a refs(...).p or one of the JSON forms of referring expressions")


def _of_split(expressions: Sequence[Expression], split: str, path: Path) -> list[Example]:
    present = dict.fromkeys(one.split for one in expressions)
    if len(present) > 1 and split not in present:
        names = ", ".join(map(str, present))
        raise InputError(f"{path}: holds the splits {names}, but not {split!r}; give --split")
    return [one.example for one in expressions if len(present) == 1 or one.split == split]


def _beside(path: Path) -> Instances:
    """Read the boxes that lie beside a file of references."""
    instances, file = Instances(), path.with_name(INSTANCES)
    if not file.is_file():
        raise InputError(
            f"{path}: names boxes of {INSTANCES}, but there is none beside it; give that file as a "
            "further --annotations"
        )
    document = _document(file)
    if not _is_instances(document):
        raise wrong_file(file, "boxes and images as COCO has them")
    instances.add(document, file)
    return instances


def _refer(refs: Sequence[Any], path: Path, instances: Instances) -> Iterator[Expression]:
    for number, ref in enumerate(refs, start=1):
        require(ref, {"ref_id": int}, f"{path}: reference {number}")
        where = f"{path}: ref_id {ref['ref_id']}"
        ids = {"ann_id": int, "image_id": int, "category_id": int}
        require(ref, {**ids, "split": str, "sentences": list}, where)
        box = _annotated(ref, where, instances)
        for sentence in ref["sentences"]:
            require(sentence, {"sent_id": int}, where)
            text = sentence.get("sent") or sentence.get("raw")
            yield Expression(
                ref["split"],
                _example(
                    sentence["sent_id"],
                    ref["ref_id"],
                    text,
                    instances.images[ref["image_id"]],
                    box,
                    f"{where}, sent_id {sentence['sent_id']}",
                    instances.categories.get(ref["category_id"]),
                ),
            )


def _annotated(ref: Mapping[str, Any], where: str, instances: Instances) -> Any:
    """Return the box of a reference as its file has it.

    Raises:
        InputError: there is none, it is of another image, or it is a crowd's.
    """
    entry = instances.boxes.get(ref["ann_id"])
    if entry is None:
        raise InputError(f"{where}: must have a box, but {INSTANCES} has no id {ref['ann_id']}")
    if entry["image_id"] != ref["image_id"] or ref["image_id"] not in instances.images:
        raise InputError(
            f"{where}: must have a box in image {ref['image_id']}, but that of id {ref['ann_id']} "
            f"is in image {entry['image_id']}, or {INSTANCES} has no such image"
        )
    if entry.get("iscrowd"):
        raise InputError(f"{where}: must speak of one thing, but id {ref['ann_id']} is a crowd")
    return entry.get("bbox")


def _mattnet(document: Mapping[str, Any], path: Path) -> Iterator[Expression]:
    document = {"cat_to_ix": {}, **document}
    lists = {"refs": list, "images": list, "sentences": list}
    require(document, {**lists, "cat_to_ix": dict}, str(path))
    images: dict[int, str] = {}
    for number, image in enumerate(document["images"], start=1):
        require(image, {"image_id": int, "file_name": str}, f"{path}: image {number}")
        images[image["image_id"]] = image["file_name"]
    words: dict[int, str] = {}
    for number, entry in enumerate(document["sentences"], start=1):
        require(entry, {"sent_id": int, "tokens": list}, f"{path}: sentence {number}")
        words[entry["sent_id"]] = " ".join(map(str, entry["tokens"]))
    names = {str(index): name for name, index in document["cat_to_ix"].items()}
    for number, ref in enumerate(document["refs"], start=1):
        require(ref, {"ref_id": int}, f"{path}: reference {number}")
        where = f"{path}: ref_id {ref['ref_id']}"
        require(ref, {"image_id": int, "split": str, "sent_ids": list}, where)
        image, name = images.get(ref["image_id"]), names.get(str(ref.get("category_id")))
        for key in ref["sent_ids"]:
            place = f"{where}, sent_id {shown(key)}"
            if type(key) is not int:
                raise InputError(f"{place}: must be an integer")
            example = _example(
                key, ref["ref_id"], words.get(key), image, ref.get("box"), place, name
            )
            yield Expression(ref["split"], example)


def _mdetr(document: Mapping[str, Any], path: Path) -> Iterator[Expression]:
    require(document, {"images": list, "annotations": list}, str(path))
    boxes: dict[int, list[Mapping[str, Any]]] = {}
    for number, entry in enumerate(document["annotations"], start=1):
        require(entry, {"image_id": int, "id": int}, f"{path}: annotation {number}")
        boxes.setdefault(entry["image_id"], []).append(entry)
    for number, image in enumerate(document["images"], start=1):
        require(image, {"id": int}, f"{path}: image {number}")
        where = f"{path}: image id {image['id']}"
        own = boxes.get(image["id"], [])
        if len(own) != 1 or own[0].get("iscrowd"):
            crowd = " of a crowd" if len(own) == 1 else ""
            raise InputError(f"{where}: an expression must have one box, got {len(own)}{crowd}")
        ref_id = own[0].get("original_id", own[0]["id"])
        require({"original_id": ref_id}, {"original_id": int}, where)
        name, text = image.get("file_name"), image.get("caption")
        yield Expression(None, _example(image["id"], ref_id, text, name, own[0].get("bbox"), where))


def _lines(records: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Expression]:
    """Read one object an expression; it is numbered where it has no ids, from 0."""
    for number, (where, entry) in enumerate(records):
        ids = {name: entry.get(name, number) for name in ("sent_id", "ref_id")}
        require(ids, {"sent_id": int, "ref_id": int}, where)
        image = next((entry[name] for name in IMAGE_FIELDS if name in entry), None)
        text = next((entry[name] for name in TEXT_FIELDS if name in entry), None)
        left, top, right, bottom = four_numbers(entry.get("bbox"), where)
        box = left, top, right - left, bottom - top
        example = _example(ids["sent_id"], ids["ref_id"], text, image, box, where)
        yield Expression(None, example)


def _example(
    sent_id: int,
    ref_id: int,
    text: Any,
    image: Any,
    box: Any,
    where: str,
    category: str | None = None,
) -> Example:
    """Make an example of what a file says.

    Args:
        box: x, y, width, height.

    Raises:
        InputError: there is no text, no image or no box; says where.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: an expression must have words, got {shown(text)}")
    if not isinstance(image, str) or not image:
        raise InputError(f"{where}: an expression must name its image, got {shown(image)}")
    return Example(
        example_id=sent_id,
        text=_repaired(text).strip(),
        images=(image,),
        target={REFERRED: 1.0},
        meta={
            "ref_id": ref_id,
            "box": box_of(box, where),
            "parts": {"category": [category]} if category else {},
        },
    )


def _repaired(text: str) -> str:
    """Return the text that Python 2 pickled as bytes of UTF-8; others are as they should be."""
    try:
        return text.encode("latin1").decode()
    except UnicodeError:
        return text
