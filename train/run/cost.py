"""What a run will cost, told before its first step is done: on a CPU that may take a minute."""

import logging
import time

import torch

from semvlp.progress import duration

log = logging.getLogger(__name__)

WORTH_TELLING = 1e11
"""Operations of a step: with fewer, its own time is known soon."""
UTILISATION = 0.6
"""Share of the pace of plain matrix products that whole steps keep: two cores and the size `base`
gave 105 of 175 GFLOP/s (docs/scale.md)."""
LONG_SECONDS = 86_400
MEASURED_SECONDS = 0.3
ROWS, WIDTH = 1024, 768


def cpu_pace() -> float:
    """Measure how many operations per second the CPU does in fp32 matrix products."""
    rows, weights = torch.ones(ROWS, WIDTH), torch.ones(WIDTH, 4 * WIDTH)
    rows @ weights  # the first one starts the threads
    products, begin = 0, time.monotonic()
    while time.monotonic() - begin < MEASURED_SECONDS:
        rows @ weights
        products += 1
    return products * 2 * ROWS * 4 * WIDTH**2 / (time.monotonic() - begin)


def expected_seconds(flops: float) -> float | None:
    """Return how long a step of so many operations will take on this CPU; None: not long."""
    return flops / (cpu_pace() * UTILISATION) if flops >= WORTH_TELLING else None


def tell(what: str, seconds: float, *, steps: int, pairs: int, instead: str) -> None:
    """Say in one sentence what a run costs whose steps take `seconds` each.

    Args:
        steps: how many are left.
        pairs: of each.
        instead: what to do where that is more than a day, for people.
    """
    told = (
        f"{what} on this CPU: a step of {pairs} pairs takes about {duration(seconds)}, the "
        f"{steps} that are left about {duration(steps * seconds)}"
    )
    if steps * seconds > LONG_SECONDS and instead:
        log.warning("%s; %s", told, instead)
    else:
        log.info("%s", told)
