"""Writing a drawn world: pictures, object boxes, and texts in the official forms."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semvlp.atomic import make_directory, write_bytes, write_json, write_text
from semvlp.demo.dataset import annotations
from semvlp.demo.dataset.boxes_file import coco_boxes
from semvlp.demo.dataset.compose import compose
from semvlp.demo.dataset.split_world import SplitWorld
from semvlp.demo.world.config import WorldConfig
from semvlp.demo.world.draw import draw
from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError
from semvlp.progress import Progress
from semvlp.shards.formats import safe_pickle

MARK = "world.json"
UNFINISHED = "unfinished"
TASK_FILES: dict[str, tuple[str, ...]] = {
    "vqa": ("vqa_questions_{}.json", "vqa_annotations_{}.json"),
    "gqa": ("gqa_{}.json",),
    "nlvr2": ("nlvr2_{}.json",),
    "nlvr": ("nlvr_{}.json",),
    "snli-ve": ("snli_ve_{}.jsonl",),
    "retrieval": ("captions_{}.json",),
    "refcoco": ("refs_{}.p", "instances_{}.json"),
    "table": ("memes_{}.jsonl",),
}


@dataclass(frozen=True, slots=True)
class WorldFiles:
    """The paths of the files of a written world."""

    root: Path
    splits: tuple[str, ...]

    def images(self, split: str) -> Path:
        """Return the directory of the pictures of a split."""
        return self.root / "images" / split

    def boxes(self, split: str) -> Path:
        """Return the COCO JSON with `attributes`; file names are relative to `images(split)`."""
        return self.root / f"detector_{split}.json"

    def texts(self, split: str) -> Path:
        """Return the JSON lines with captions, questions and statements of every picture."""
        return self.root / f"texts_{split}.jsonl"

    def annotations(self, task: str, split: str) -> list[Path]:
        """Return the annotation files of a task, in its official form where it has one."""
        return [self.root / name.format(split) for name in TASK_FILES[task]]


def write_world(
    out: Path, *, scenes: Mapping[str, int], seed: int, config: WorldConfig | None = None
) -> WorldFiles:
    """Draw a world of `scenes[split]` scenes (and what `config` adds to them) under `out`.

    A world that is there already and was made from the same values is left as it is; one that was
    cut short is drawn again.

    Raises:
        ConfigError: `out` holds another world or something else.
        InputError: the values there are damaged.
    """
    config = config or WorldConfig()
    made_of = {"scenes": dict(scenes), "seed": seed, "config": asdict(config)}
    files = WorldFiles(out, tuple(scenes))
    written = read_mark(out)
    is_finished = bool(written) and not written.pop(UNFINISHED, False)
    _check_same(out, written, made_of)
    if is_finished:
        return files
    make_directory(out)
    # First, so that what is there can be told to be ours.
    write_json(out / MARK, {**made_of, UNFINISHED: True})
    for world in compose(scenes, seed=seed, config=config):
        _write_pictures(files, world)
        _write_texts(files, world)
    write_json(out / MARK, made_of)
    return files


def read_mark(out: Path) -> dict[str, Any]:
    """Read the values that the world in a folder was made from; empty where there is none.

    Raises:
        InputError: they are damaged.
    """
    try:
        return dict(from_json((out / MARK).read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{out / MARK} must hold what the world was made from, but: {error}; remove {out} if "
            "it is such a world, or name another directory"
        ) from error


def _check_same(out: Path, written: dict[str, Any], made_of: dict[str, Any]) -> None:
    """Refuse a folder that holds another world, or something else than a world."""
    is_empty = not out.exists() or all(path.name.startswith(".") for path in out.iterdir())
    if written:
        # What an earlier version did not know was as it is by default.
        written = {**written, "config": {**asdict(WorldConfig()), **written["config"]}}
    if not is_empty and written != json.loads(json.dumps(made_of)):
        what = f"another one ({written})" if written else f"something else (no {MARK})"
        raise ConfigError(
            f"{out} must be empty or hold the world asked for ({made_of}), but it holds "
            f"{what}; give another directory or delete it"
        )


def _write_pictures(files: WorldFiles, world: SplitWorld) -> None:
    folder = files.images(world.split)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = list(world.pictures)
    with Progress(f"drawing {world.split}", total=len(pictures), unit="pictures") as bar:
        for picture in pictures:
            draw(picture.scene).save(folder / f"{picture.image_id}.png", compress_level=1)
            bar.advance()
    named = ((f"{picture.image_id}.png", picture.scene) for picture in pictures)
    write_json(files.boxes(world.split), coco_boxes(named), indent=None)


def _write_texts(files: WorldFiles, world: SplitWorld) -> None:
    split = world.split
    questions, answers = files.annotations("vqa", split)
    write_json(questions, annotations.vqa_questions(world), indent=None)
    write_json(answers, annotations.vqa_annotations(world), indent=None)
    for task, document in (("gqa", annotations.gqa), ("retrieval", annotations.coco_captions)):
        write_json(files.annotations(task, split)[0], document(world), indent=None)
    refs, instances = files.annotations("refcoco", split)
    boxes = annotations.instances(world)
    write_json(instances, boxes, indent=None)
    write_bytes(refs, safe_pickle.dumps(annotations.refs(world, boxes)))
    for task, lines in (
        ("nlvr2", annotations.nlvr2),
        ("nlvr", annotations.nlvr),
        ("snli-ve", annotations.snli_ve),
        ("table", annotations.memes),
    ):
        _write_lines(files.annotations(task, split)[0], lines(world))
    _write_lines(files.texts(split), annotations.texts(world))


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    lines = (json.dumps(record, allow_nan=False, ensure_ascii=False) for record in records)
    write_text(path, "".join(f"{line}\n" for line in lines))
