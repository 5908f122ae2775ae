"""Things that are closed at the end of a `with` block."""

from types import TracebackType
from typing import Self


class Closing:
    """A context manager whose end is `close`."""

    def close(self) -> None:
        """Give back what is open."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
