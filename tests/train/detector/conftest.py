"""A drawn set to learn a detector from."""

import pytest

from semvlp.train.detector import train
from tests.drawn_boxes import drawn, one_thread

__all__ = ["drawn", "one_thread"]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves takes longer than the trainings here."""
    monkeypatch.setattr(train, "write_report", lambda run: run)
