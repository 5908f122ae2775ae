"""Names of object classes and attributes, where a checkpoint has only their numbers."""

from collections.abc import Sequence
from pathlib import Path

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detector import Detector


def name_labels(detector: Detector, files: Sequence[Path]) -> None:
    """Give a detector the names in text files, a line each: object classes, then attributes.

    Lines stand in the order of the classes, background and "none" left out, as in bottom-up
    attention's `objects_vocab.txt` and `attributes_vocab.txt`.

    Raises:
        ConfigError: more than two files.
        InputError: a file that cannot be read or has another number of names than the detector.
    """
    if len(files) > 2:
        raise ConfigError("--labels takes one file of object classes and one of attributes")
    for path, kind in zip(files, ("object", "attribute"), strict=False):
        names, count = _names(path), len(getattr(detector, f"{kind}_labels"))
        if len(names) != count:
            raise InputError(
                f"{path}: must name the {count} {kind} classes of the detector, a line each, "
                f"found {len(names)} lines"
            )
        setattr(detector, f"{kind}_labels", names)


def _names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return tuple(line.strip() for line in lines)
