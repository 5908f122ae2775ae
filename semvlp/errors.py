"""What can go wrong, the exit code each kind ends the program with, and how it may be said."""

import reprlib

# Names of files, ids and texts come from anywhere. A terminal obeys the first two kinds; the third
# turns the order of what is read around, and the last cannot be printed at all.
_OBEYED = (
    *(code for code in range(0x20) if chr(code) not in "\t\n"),
    *range(0x7F, 0xA0),
    *(0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    *range(0xD800, 0xE000),
)
_ESCAPED = {code: f"\\u{code:04x}" for code in _OBEYED}


class SemVLPError(Exception):
    """A failure with one clear message: what must hold, what was found, what to do."""

    exit_code = 1


class ConfigError(SemVLPError):
    """The command line or a configuration asks for something that cannot be."""

    exit_code = 2


class InputError(SemVLPError):
    """A file that was given is damaged, of another kind, or names what does not exist."""

    exit_code = 3


class TooManyRefused(SemVLPError):
    """The work is finished, but more inputs were refused than the user allows."""

    exit_code = 4


class Interrupted(SemVLPError):
    """Stopped by the user or by SIGTERM; everything finished so far is kept."""

    exit_code = 130


class _Short(reprlib.Repr):
    """Containers as Python writes them, those of deep levels and of many parts in part.

    A tuple of one tuple twice, and so on, has twice the length for each level.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = 30
        self.maxstring = self.maxlong = self.maxother = 1000


_SHORT = _Short()


def shown(value: object, width: int = 80) -> str:
    """Return the start of a value as Python writes it, for a message; of any value."""
    try:
        return _SHORT.repr(value)[:width]
    except (RecursionError, ValueError):
        # Nested as deeply as it could be read, or a number of more digits than Python writes.
        return f"a {type(value).__name__}"


def printable(text: str) -> str:
    """Return a text for people with what a terminal obeys written as in JSON: `\\u001b`."""
    return text.translate(_ESCAPED)
