"""Colours exchanged in a sentence and in its scene alike: what was true of it stays true."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

from semvlp import atomic
from semvlp.demo.draw import draw
from semvlp.demo.nlvr_scenes import ORDERS, read_scenes, structured_rep
from semvlp.demo.scene import BOX_COLORS, Scene

Exchange = Mapping[str, str]
EXCHANGES: tuple[Exchange, ...] = tuple(
    dict(zip(BOX_COLORS, order, strict=True)) for order in permutations(BOX_COLORS)
)[1:]
"""Every way but the one that changes nothing."""
_NAMES = re.compile("|".join(BOX_COLORS), re.IGNORECASE)


def write_recoloured(annotations: Path, out: Path, *, copies: int, seed: int) -> list[Path]:
    """NLVR v1 files `recolouredN.json` in `out`, one for each copy, with their pictures beside.

    The four scenes that a sentence speaks of change their colours together, in each copy in
    another way; `copies` is at most 5.

    Raises:
        InputError: a line of `annotations` that is no NLVR record with `structured_rep`.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines: list[list[str]] = [[] for _ in range(copies)]
    for record, scene in read_scenes(annotations):
        family = record["identifier"].partition("-")[0]
        for copy, exchange in enumerate(Random(f"{seed}-{family}").sample(EXCHANGES, copies)):
            split = f"recoloured{copy + 1}"
            changed = _recoloured(record, scene, exchange, split)
            lines[copy].append(json.dumps(changed[0]) + "\n")
            for name, picture in _pictures(*changed):
                if not (out / name).exists():
                    draw(picture).save(out / name)
    files = [out / f"recoloured{copy + 1}.json" for copy in range(copies)]
    for file, written in zip(files, lines, strict=True):
        atomic.write_text(file, "".join(written))
    return files


def exchanged(sentence: str, exchange: Exchange) -> str:
    """The sentence with its colour words exchanged, wherever they stand, in small letters."""
    return _NAMES.sub(lambda found: exchange[found[0].lower()], sentence)


def _recoloured(
    record: Mapping[str, Any], scene: Scene, exchange: Exchange, split: str
) -> tuple[dict[str, Any], Scene]:
    panels = tuple(
        tuple(replace(item, color=exchange[item.color]) for item in panel) for panel in scene.panels
    )
    changed = replace(scene, panels=panels)
    sentence = exchanged(record["sentence"], exchange)
    shown = structured_rep(changed)
    return {**record, "sentence": sentence, "structured_rep": shown, "split": split}, changed


def _pictures(record: Mapping[str, Any], scene: Scene) -> Iterator[tuple[str, Scene]]:
    """The six pictures of a record by their file names."""
    for k, order in enumerate(ORDERS):
        yield f"{record['split']}-{record['identifier']}-{k}.png", scene.permuted(order)
