"""plan.json: written before anything else, and compared when work goes on."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semvlp.atomic import PART_DIR, json_text, publish_pieces
from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError
from semvlp.names import StoreKind
from semvlp.shards.dataset.entries import MOST_FEATURES, whole
from semvlp.shards.dataset.manifest import MANIFEST_NAME
from semvlp.shards.dataset.plan import PLAN_NAME, Plan, differences
from semvlp.shards.dataset.refusals import REFUSED_NAME

TEXTS = "texts_sha256"
IMAGES_AT_ONCE = 10_000

# The plan last: while it stands, whatever else is left can be told to be ours.
_OUR_FILES = (
    MANIFEST_NAME,
    "index.safetensors",
    "shard-[0-9][0-9][0-9][0-9][0-9][0-9].tar",
    "shard-[0-9][0-9][0-9][0-9][0-9][0-9].idx",
    "shard-[0-9][0-9][0-9][0-9][0-9][0-9].json",
    "regions.lmdb",
    "texts.lmdb",
    PLAN_NAME,
)


def refuse_strangers(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder with files that have the names of ours and cannot be told to be ours.

    Raises:
        ConfigError: there is no plan to go on with, or with `overwrite` no manifest either.
    """
    named = _named_like_ours(out)
    if named and overwrite and not _is_ours(out):
        raise ConfigError(
            f"{out} holds {named[0]}, but neither {PLAN_NAME} nor {MANIFEST_NAME} of a data "
            "set, so nothing is removed; name another --out"
        )
    if named and not overwrite and not (out / PLAN_NAME).exists():
        anew = ", or start anew with --overwrite" if _is_ours(out) else ""
        raise ConfigError(
            f"{out} holds {named[0]} but no {PLAN_NAME}, so it cannot be gone on with; "
            f"name another --out{anew}"
        )


def clear(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing else, but for what it refused."""
    for pattern in _OUR_FILES:
        for path in sorted(out.glob(pattern)):
            path.unlink()
    shutil.rmtree(out / PART_DIR, ignore_errors=True)


def _named_like_ours(out: Path) -> list[str]:
    named = [file.name for pattern in _OUR_FILES for file in out.glob(pattern)]
    # Whoever is about to write has it open, and empty where there was none.
    refused = out / REFUSED_NAME
    return [*named, REFUSED_NAME] if refused.exists() and refused.stat().st_size else named


def _is_ours(out: Path) -> bool:
    """Tell by what every plan and manifest says, even one that a crash has damaged."""
    marks = {PLAN_NAME: b'"object_labels"', MANIFEST_NAME: b'"class_vocab"'}
    files = {out / name: mark for name, mark in marks.items()}
    return any(file.is_file() and mark in file.read_bytes() for file, mark in files.items())


def write_or_check_plan(out: Path, plan: Plan, store: StoreKind, *, resume: bool) -> None:
    """Write plan.json, or compare with the one that is there.

    Raises:
        ConfigError: there is another plan, or work although `resume` is off.
    """
    path = out / PLAN_NAME
    if not path.exists():
        publish_pieces(path, _pieces(plan, store))
        return
    if not resume:
        raise ConfigError(
            f"{out} holds the work of an earlier run; go on with --resume, "
            "start anew with --overwrite, or name another --out"
        )
    if _holds(path, plan, store):
        return
    begun, wanted = _read(path), plan.to_json(store)
    if begun != wanted and {**begun, TEXTS: wanted.get(TEXTS)} == wanted:
        raise ConfigError(
            f"{out} was begun with other texts; `semvlp shards join {out} --texts FILE --out DIR` "
            "adds texts to images that are extracted; or name another --out, or start anew with "
            "--overwrite"
        )
    for difference in differences(begun, wanted):
        raise ConfigError(
            f"{out} was begun with another plan: {difference}; "
            "name another --out, or start anew with --overwrite"
        )


def is_plan(path: Path, plan: Plan, store: StoreKind) -> bool:
    """Tell whether a file says what the plan of a store does.

    Raises:
        InputError: it is damaged.
        OSError: it cannot be read.
    """
    return _holds(path, plan, store) or _read(path) == plan.to_json(store)


def _holds(path: Path, plan: Plan, store: StoreKind) -> bool:
    """Tell whether a file has the bytes that are written for a plan; most have."""
    with path.open("rb") as file:
        same = all(file.read(len(piece)) == piece for piece in _pieces(plan, store))
        return same and not file.read(1)


def _pieces(plan: Plan, store: StoreKind) -> Iterator[bytes]:
    """Give the bytes of plan.json; the images, which may be millions, come a few at a time."""
    first = json_text(plan.to_json(store, images=False))
    if not len(plan.keys):
        yield first.encode()
        return
    head, last = first.rsplit("[]", 1)
    yield head.encode() + b"["
    comma = ""
    for start in range(0, len(plan.keys), IMAGES_AT_ONCE):
        few = (plan.keys[row] for row in range(start, min(start + IMAGES_AT_ONCE, len(plan.keys))))
        names = (json.dumps(name, ensure_ascii=False) for name in few)
        yield (comma + ",".join(f"\n  {name}" for name in names)).encode()
        comma = ","
    yield b"\n ]" + last.encode()


def begun_extractor(out: Path) -> Mapping[str, Any]:
    """Return the extractor of the data set that `out` was begun with; empty where there is none.

    Raises: as `write_or_check_plan`.
    """
    path = out / PLAN_NAME
    extractor = _read(path).get("extractor") if path.exists() else None
    return extractor if isinstance(extractor, dict) else {}


def begun_ids(out: Path) -> tuple[str, ...]:
    """Return the images of the data set that `out` was begun with; none where there is none.

    Raises: as `write_or_check_plan`.
    """
    path = out / PLAN_NAME
    ids = _read(path).get("image_ids") if path.exists() else None
    return tuple(ids) if isinstance(ids, list) else ()


def _read(path: Path) -> Mapping[str, Any]:
    try:
        plan = from_json(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); start anew with --overwrite") from error
    return plan if isinstance(plan, dict) else {}


def read_plan(out: Path) -> Plan:
    """Read the plan that a data set was begun with.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        entry = from_json((out / PLAN_NAME).read_bytes())
        return Plan(
            image_ids=tuple(entry["image_ids"]),
            extractor=entry["extractor"],
            object_labels=tuple(entry["object_labels"]),
            attribute_labels=tuple(entry["attribute_labels"]),
            feature_size=whole(entry, "feature_size", least=1, most=MOST_FEATURES),
            samples_per_shard=whole(entry, "samples_per_shard", least=1),
            texts_sha256=entry["texts_sha256"],
            boxes_sha256=entry.get("boxes_sha256", ""),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{out / PLAN_NAME} is needed, but cannot be read ({error!r}); copy it again, or run "
            "the command that made the data set once more"
        ) from error
