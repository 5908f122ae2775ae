"""Where this process stands among those that torchrun has started."""

import os
from typing import NamedTuple


class ProcessRank(NamedTuple):
    """One process of several; a plain run is the only one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its number on its own machine."""


def process_rank() -> ProcessRank:
    """Return the rank of this process, as torchrun's environment tells it."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
    return ProcessRank(*(int(os.environ.get(name, alone)) for name, alone in names.items()))
