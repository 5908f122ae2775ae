"""Names of classes for files that number them: from text files, or those of Visual Genome."""

from collections.abc import Sequence
from pathlib import Path

from semvlp.errors import ConfigError, InputError

VISUAL_GENOME = "visual-genome"
"""Stands for the 1,600 object classes and 400 attributes of bottom-up attention, and of what was
trained with its lists: data/genome/1600-400-20 of peteanderson80/bottom-up-attention (MIT)."""


def read_labels(given: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of object classes and of attributes, without "background" and "none".

    Args:
        given: a file of object classes and one of attributes, a name a line, or VISUAL_GENOME.

    Raises:
        ConfigError: more than two files.
        InputError: a file that cannot be read as text.
    """
    if tuple(given) == (VISUAL_GENOME,):
        files = [
            Path(__file__).with_name(f"visual_genome_{kind}.txt")
            for kind in ("objects", "attributes")
        ]
    else:
        files = [Path(name) for name in given]
    if len(files) > 2:
        raise ConfigError("--labels takes one file of object classes and one of attributes")
    objects, attributes = ([read_names(file) for file in files] + [(), ()])[:2]
    return objects, attributes


def read_names(path: Path) -> tuple[str, ...]:
    """Return the names in a text file, a line each.

    Raises:
        InputError: it cannot be read as UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return tuple(line.strip() for line in lines)
