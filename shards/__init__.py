"""Region features and texts on disk: tar shards to train from, LMDB to look up, one record."""

from semvlp.shards.open import open_store
from semvlp.shards.record import Question, Regions, Sample, Texts

__all__ = ["Question", "Regions", "Sample", "Texts", "open_store"]
