"""How single-stream and two-stream steps take turns, as it is written in a configuration."""

import math
from typing import Literal, NamedTuple, cast, get_args

Turns = Literal["alternate", "ratio", "single", "two"]


class Phase(NamedTuple):
    """A run of steps whose modes take turns in one way."""

    turns: Turns
    steps: float
    """How many; infinite in the last phase."""


def read_phase(text: str, *, is_last: bool) -> Phase:
    """A phase written as `single 100000`, or as `alternate` where it is the last.

    Raises:
        ValueError: it is written otherwise.
    """
    turns, *steps = text.split()
    number = math.inf if is_last and not steps else _whole_number("".join(steps))
    if turns not in get_args(Turns) or number < 1 or (is_last and steps):
        raise ValueError(
            "schedule must name phases, each with its steps but the last without, such as "
            f'["single 100000", "alternate"], of {", ".join(get_args(Turns))}; got {text!r}'
        )
    return Phase(cast(Turns, turns), number)


def _whole_number(text: str) -> int:
    return int(text) if text.isdigit() else 0
