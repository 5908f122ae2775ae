"""Several processes as one extraction: found from torchrun's environment, absent in a plain run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from semvlp.torchrun import place

# One rank may have all the large images; only a rank that died ends the wait, through torchrun.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of this run and our place among them; they talk between CPUs only."""

    rank: int = 0
    size: int = 1
    group: Any = None

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.sum(0)

    def sum(self, value: int) -> int:
        """The sum of every rank's value."""
        if self.size == 1:
            return value
        total = torch.tensor(value)
        distributed.all_reduce(total, group=self.group)
        return int(total)


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of this process, as torchrun describes them; left again at the end."""
    rank, size, _ = place()
    if size == 1:
        yield Ranks()
        return
    if rank:
        logging.getLogger("semvlp").setLevel(logging.WARNING)
    already = distributed.is_initialized()
    if not already:
        distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(rank, size, distributed.new_group(backend="gloo", timeout=_PATIENCE))
    finally:
        if not already:
            distributed.destroy_process_group()
