"""JSON of one value that may be larger than memory: its entries are decoded one at a time.

`survey` goes through the whole text once, so damage is told before anything is taken of it, in the
words of `json`, and notes where the lists of the outermost object begin: `entries` reads on there.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from semvlp.documents import from_json, value_at

CHUNK = 1 << 20
MARGIN = 16
"""Characters behind a value, or an error, that must be known for more text not to change it."""
AT_ONCE = 1 << 16
"""Characters of objects that are decoded together: one by one takes three times as long."""
MOST_IN_HEAD = 1000
_SPACE = re.compile(r"[ \t\n\r]*")
AFTER_ENTRY, AFTER_NAME, AFTER_MEMBER = '[""', '{"a"', '{"a":""'
"""What an error is told behind: `json` knows best what should have come."""


class JsonDamage(ValueError):
    """What is wrong with a JSON text, and where, as `json` says it."""


class Survey(NamedTuple):
    """What is known of a document without its entries."""

    head: Any
    """Its value, with the first entry alone of each list that it is or holds."""
    places: dict[str | None, int]
    """Byte at which each list that is a member begins; of None, where the document is one."""


class JsonText:
    """UTF-8 text, read on as it is taken; `start` is the byte of the file that it begins at."""

    def __init__(self, file: IO[bytes], start: int = 0) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8")()
        if start:
            _skip_bytes(file, start)
        first = file.read(max(CHUNK, len(codecs.BOM_UTF8)))
        mark = codecs.BOM_UTF8 if not start and first.startswith(codecs.BOM_UTF8) else b""
        self._before, self._read = start + len(mark), 0
        self._text = self._decoded(first[len(mark) :], final=len(first) < len(mark) + 1)
        self._at = self._kept = 0
        self._ended = not first
        self._chars = self._lines = self._line_start = 0
        self._alone = self._failed = 0

    def skip(self) -> str:
        """Skip blanks; return the character that follows, empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def take(self) -> None:
        """Take the character that follows."""
        self._at += 1

    def keep(self) -> None:
        """Remember this place as the one that an error is told from."""
        self._kept = self._at

    def value(self) -> Any:
        """Decode the value that follows."""
        while True:
            try:
                value, end = value_at(self._text, self._at)
            except json.JSONDecodeError as error:
                if not error.doc:
                    raise JsonDamage(str(error)) from error
                cut = error.pos + MARGIN > len(self._text) or error.msg.startswith("Unterminated")
                if self._ended or not cut:
                    raise self._damage(error.msg, error.pos) from error
            else:
                if self._ended or end + MARGIN <= len(self._text):
                    self._at = self._kept = end
                    return value
            self._more()

    def several(self) -> list[Any]:
        """Decode some objects of a list that follow, all at once; none where that does not work.

        What fails, because a comma behind `}` is not one of the list, is put off ever longer.
        """
        if self._alone:
            self._alone -= 1
            return []
        end = self._text.rfind("},", self._at, self._at + AT_ONCE) + 1
        try:
            values: list[Any] = from_json(f"[{self._text[self._at : end]}]") if end else []
        except json.JSONDecodeError:
            values = []
        self._failed = 0 if values else 2 * self._failed + 1
        self._alone = self._failed
        if values:
            self._at = self._kept = end
        return values

    def unexpected(self, before: str) -> JsonDamage:
        """Return the error of what follows the place that was kept, which is none of `before`."""
        window = self._text[self._kept : self._at + MARGIN]
        try:
            json.loads(before + window)
        except json.JSONDecodeError as error:
            return self._damage(error.msg, self._kept + error.pos - len(before))
        return self._damage("Extra data", self._at)

    def byte(self) -> int:
        """Return where in the file the character that follows stands."""
        return self._before + len(self._text[: self._at].encode())

    def line(self) -> int:
        """Return the number of the line of the character that follows, from 0."""
        return self._lines + self._text.count("\n", 0, self._at)

    def _more(self) -> None:
        gone, self._text = self._text[: self._kept], self._text[self._kept :]
        newline = gone.rfind("\n")
        self._line_start = self._line_start if newline < 0 else self._chars + newline + 1
        self._lines += gone.count("\n")
        self._chars += len(gone)
        self._before += len(gone.encode())
        self._at -= self._kept
        self._kept = 0
        data = self._file.read(max(CHUNK, len(self._text)))
        self._ended = not data
        self._text += self._decoded(data, final=self._ended)

    def _decoded(self, data: bytes, *, final: bool) -> str:
        waiting = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            place = self._read - waiting + error.start
            byte = error.object[error.start]
            raise ValueError(
                f"'utf-8' codec can't decode byte 0x{byte:02x} in position {place}: {error.reason}"
            ) from error
        self._read += len(data)
        return text

    def _damage(self, message: str, at: int) -> JsonDamage:
        newline = self._text.rfind("\n", 0, at)
        start = self._line_start if newline < 0 else self._chars + newline + 1
        line = self._lines + self._text.count("\n", 0, at) + 1
        char = self._chars + at
        return JsonDamage(f"{message}: line {line} column {char - start + 1} (char {char})")


def survey(text: JsonText) -> Survey:
    """Decode the object or list that follows, and keep what tells its kind.

    Raises:
        JsonDamage: it is damaged.
        ValueError: it is no UTF-8, or the file that it comes from is damaged.
    """
    places: dict[str | None, int] = {}
    if text.skip() == "[":
        places[None] = text.byte()
        return Survey(_first_of(entries(text)), places)
    head: dict[str, Any] = {}
    for name in members(text):
        # As in a dict: the last one of a name counts, in the place of the first.
        places.pop(name, None)
        if text.skip() == "[":
            places[name] = text.byte()
            head[name] = _first_of(entries(text))
        else:
            value = text.value()
            if name in head or len(head) < MOST_IN_HEAD:
                head[name] = value
    return Survey(head, places)


def entries(text: JsonText) -> Iterator[Any]:
    """Give the entries of the list that follows, and take it.

    Raises: as `survey`.
    """
    text.keep()
    text.take()
    if text.skip() == "]":
        text.take()
        return
    while True:
        yield from text.several() or (text.value(),)
        if (behind := text.skip()) == ",":
            text.take()
            behind = text.skip()
            if behind != "]":
                continue
        elif behind == "]":
            text.take()
            return
        raise text.unexpected(AFTER_ENTRY)


def members(text: JsonText) -> Iterator[str]:
    """Give the name of each member of the object that follows; whoever takes one takes its value.

    Raises: as `survey`.
    """
    before = ""
    text.keep()
    text.take()
    if text.skip() == "}":
        text.take()
        return
    while True:
        if text.skip() != '"':
            raise text.unexpected(before)
        name = text.value()
        if text.skip() != ":":
            raise text.unexpected(AFTER_NAME)
        text.take()
        text.skip()
        yield name
        text.keep()
        before = AFTER_MEMBER
        if (behind := text.skip()) == "}":
            text.take()
            return
        if behind != ",":
            raise text.unexpected(before)
        text.take()


def _first_of(values: Iterator[Any]) -> list[Any]:
    """Take all values; return the first one, if there is one."""
    first = [value for _, value in zip(range(1), values, strict=False)]
    for _ in values:
        pass
    return first


def _skip_bytes(file: IO[bytes], count: int) -> None:
    if file.seekable():
        file.seek(count)
        return
    while count and (data := file.read(min(count, CHUNK))):
        count -= len(data)
