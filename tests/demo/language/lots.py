"""Claims drawn by lot until the one comes that a test asks for."""

from collections.abc import Callable
from random import Random
from typing import Generic, TypeVar

from semvlp.demo.language.claims import Claim

S = TypeVar("S")
NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}


def normal(text: str) -> str:
    return " ".join(text.lower().rstrip(".").split())


class Lot(Generic[S]):
    """Claims of a writer, by their text in a plain spelling; drawn no further than is asked for."""

    def __init__(
        self,
        write: Callable[[Random], Claim[S]],
        *,
        most: int,
        seed: int = 0,
        plain: Callable[[str], str] = normal,
    ) -> None:
        rng = Random(seed)
        self._plain = plain
        self._drawn = (write(rng) for _ in range(most))
        self._claims: dict[str, Claim[S]] = {}
        self._texts: set[str] = set()

    def claim(self, text: str) -> Claim[S]:
        """Return the claim that says what `text` says."""
        wanted = self._plain(text)
        if wanted not in self._claims:
            for drawn in self._drawn:
                if drawn.text not in self._texts:
                    self._texts.add(drawn.text)
                    self._claims.setdefault(self._plain(drawn.text), drawn)
                if wanted in self._claims:
                    break
        return self._claims[wanted]
