"""The batches of a stream for PyTorch's DataLoader, and for loaders that store their state.

For those who have a loop of their own around a DataLoader; `reader.py` is faster.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from semvlp.shards.stream.stream import Stream


class StreamDataset(IterableDataset[dict[str, Any]]):
    """Endless packed batches; to be given to a DataLoader with `batch_size=None`.

    Each is a dict: the columns of `Regions` as tensors with a row a region ("features" float16
    [R, F], "boxes" float32 [R, 4], ...), "starts" int32 [N + 1], and "visits", what is known of
    each of the N images as a dict. The order does not depend on the number of workers: they take
    turns. `state_dict` and `load_state_dict` are what StatefulDataLoader asks for; a state holds
    for the same number of workers, a `Stream`'s own for any.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._begun = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        workers, own = (1, 0) if info is None else (info.num_workers, info.id)
        if not self._begun:
            # A state that was loaded is this worker's own, and stands where it is to go on.
            self.stream.skip(own)
            self._begun = True
        while True:
            batch = self.stream.read(self.stream.position)
            visits = [
                {
                    "position": visit.position,
                    "epoch": visit.epoch,
                    "text": visit.text,
                    "image_id": visit.sample.regions.image_id,
                    "size": (visit.sample.regions.width, visit.sample.regions.height),
                    "captions": visit.sample.texts.captions,
                    "questions": visit.sample.texts.questions,
                    "negative": visit.negative,
                }
                for visit in batch.visits()
            ]
            columns = {name: torch.from_numpy(column) for name, column in batch.columns.items()}
            self.stream.skip(workers)
            yield {**columns, "starts": torch.from_numpy(batch.starts), "visits": visits}

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the batches handed out so far."""
        return {**self.stream.state_dict(), "begun": self._begun}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            ConfigError: the state belongs to another sequence; names what differs.
        """
        own = dict(state)
        self._begun = bool(own.pop("begun", False))
        self.stream.load_state_dict(own)
