"""Texts of many files, sorted by image on the disk: memory does not grow with their number.

They lie in a nameless SQLite file in the folder of temporary files (`SQLITE_TMPDIR`, `TMPDIR`),
which the system removes with the process, and which small files never reach: their pages stay in
memory.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from semvlp.closing import Closing
from semvlp.errors import SemVLPError
from semvlp.shards.keys import Keys
from semvlp.shards.record import Question, Texts
from semvlp.shards.texts.entries import Answered, Asked, Captioned, Entry

CACHE_KIB = 16 << 10
"""Of pages; sorting takes as much again."""
_SCHEMA = f"""
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
PRAGMA cache_size = -{CACHE_KIB};
CREATE TABLE texts (number INTEGER PRIMARY KEY, name TEXT, kind TEXT, body TEXT, question TEXT);
CREATE TABLE answers (question TEXT PRIMARY KEY, answers TEXT) WITHOUT ROWID;
CREATE TABLE places (name TEXT PRIMARY KEY, row INTEGER, place INTEGER) WITHOUT ROWID;
CREATE TABLE sorted (row INTEGER, place INTEGER, number INTEGER, kind TEXT, body TEXT, answers TEXT,
                     PRIMARY KEY (row, place, number)) WITHOUT ROWID;
"""
# Names with captions as their first captions come, then the others as their first questions do.
_NAMES = """
SELECT name FROM (SELECT name, min(number) AS first,
                         min(CASE kind WHEN 'caption' THEN number END) AS caption
                  FROM texts GROUP BY name) ORDER BY caption IS NULL, caption, first
"""
_SORT = """
INSERT INTO sorted SELECT row, place, number, kind, body, answers.answers
FROM texts JOIN places USING (name) LEFT JOIN answers USING (question)
WHERE row IS NOT NULL ORDER BY row, place, number
"""
_LOST = "SELECT name FROM places WHERE row IS NULL ORDER BY place"


class Gathered(Closing):
    """The entries of files: captions, questions, and the answers that go with their ids.

    Raises:
        SemVLPError: the disk of temporary files is full, here and in every method.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        try:
            with _space():
                self._database.executescript(_SCHEMA)
                self._database.execute("BEGIN")
                texts = self._without_answers(entries)
                self._database.executemany("INSERT INTO texts VALUES (NULL, ?, ?, ?, ?)", texts)
        except BaseException:
            self.close()
            raise

    def count_answers(self) -> tuple[int, int]:
        """Count the answered questions, and those among them that nobody asks."""
        asked = "SELECT question FROM texts WHERE question IS NOT NULL"
        with _space():
            [(every,)] = self._database.execute("SELECT count(*) FROM answers")
            alone = f"SELECT count(*) FROM answers WHERE question NOT IN ({asked})"
            [(lost,)] = self._database.execute(alone)
        return every, lost

    def names(self) -> Iterator[str]:
        """Give the names of images as the files spell them, those with captions first."""
        with _space():
            yield from (json.loads(name) for (name,) in self._database.execute(_NAMES))

    def sort(self, row_of: Callable[[str], int | None]) -> Keys:
        """Sort the texts by the rows of the images that they name; return names without one."""
        places = ((json.dumps(name), row_of(name), n) for n, name in enumerate(self.names()))
        with _space():
            self._database.executemany("INSERT INTO places VALUES (?, ?, ?)", places)
            self._database.execute(_SORT)
            lost = self._database.execute(_LOST)
            return Keys(json.loads(name) for (name,) in lost)

    def rows(self) -> Iterator[int]:
        """Give the rows that have texts, in their order, once `sort` has been called."""
        with _space():
            found = self._database.execute("SELECT DISTINCT row FROM sorted ORDER BY row")
            yield from (row for (row,) in found)

    def texts(self, row: int) -> Texts:
        """Return the texts of an image: name by name, as the files give them."""
        query = "SELECT kind, body, answers FROM sorted WHERE row = ? ORDER BY place, number"
        with _space():
            found = self._database.execute(query, (row,)).fetchall()
        captions = (json.loads(body) for kind, body, _ in found if kind == "caption")
        questions = (_question(body, own) for kind, body, own in found if kind == "question")
        return Texts(captions=tuple(captions), questions=tuple(questions))

    def close(self) -> None:
        self._database.close()

    def _without_answers(self, entries: Iterable[Entry]) -> Iterator[tuple[str | None, ...]]:
        # JSON of ASCII letters: a lone surrogate in a text is none of SQLite's.
        for entry in entries:
            match entry:
                case Captioned(image, caption):
                    yield json.dumps(image), "caption", json.dumps(caption), None
                case Asked(image, question):
                    body = [question.question, question.answers, question.question_id]
                    asked = question.question_id
                    key = None if asked is None else json.dumps(asked)
                    yield json.dumps(image), "question", json.dumps(body), key
                case Answered(question_id, answers):
                    own = json.dumps(question_id), json.dumps(answers)
                    self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", own)


class MatchedTexts(Closing, Mapping[str, Texts]):
    """The texts of the images of a data set, by id and in its order; read from `gathered`."""

    def __init__(self, gathered: Gathered, image_ids: Sequence[str]) -> None:
        self._gathered, self._ids = gathered, Keys.of(image_ids)
        self._has = bytearray(len(self._ids))
        for row in gathered.rows():
            self._has[row] = 1

    def __getitem__(self, image_id: str) -> Texts:
        row = self._ids.find(image_id)
        if row is None or not self._has[row]:
            raise KeyError(image_id)
        return self._gathered.texts(row)

    def __contains__(self, image_id: object) -> bool:
        row = self._ids.find(image_id) if isinstance(image_id, str) else None
        return row is not None and bool(self._has[row])

    def __iter__(self) -> Iterator[str]:
        return (self._ids[row] for row, has in enumerate(self._has) if has)

    def __len__(self) -> int:
        return self._has.count(1)

    def close(self) -> None:
        self._gathered.close()


def _question(body: str, answers: str | None) -> Question:
    question, own, question_id = json.loads(body)
    given: dict[str, Any] = own if answers is None else json.loads(answers)
    return Question(question=question, answers=given, question_id=question_id)


@contextmanager
def _space() -> Iterator[None]:
    """Say what to do where the disk is full."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise SemVLPError(
            f"the texts could not be sorted in the folder of temporary files ({error}): free some "
            "space there, or name another folder in SQLITE_TMPDIR"
        ) from error
