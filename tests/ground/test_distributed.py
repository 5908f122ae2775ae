"""The processes of a run: alone nothing is exchanged, together everyone gets the same."""

from datetime import timedelta
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semvlp.distributed import ALONE, World, device_of, joined
from semvlp.errors import ConfigError
from tests.train.processes import together

PATIENCE = timedelta(minutes=2)


def test_a_plain_run_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu", patience=PATIENCE) as world:
        assert world == ALONE == World(0, 1, 0, torch.device("cpu"))
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        assert not torch.distributed.is_initialized()
        assert world.sum([1.0, 2.5]) == [1.0, 2.5]
        world.wait()
        assert world.max(2.5) == 2.5


@pytest.mark.parametrize("size", [1, 2, 4, 7])
@pytest.mark.parametrize("units", [0, 1, 5, 8])
def test_shares_are_a_partition(size: int, units: int) -> None:
    shares = [list(World(rank, size).share(units)) for rank in range(size)]
    assert sorted(unit for share in shares for unit in share) == list(range(units))


def test_alone_nothing_is_exchanged() -> None:
    ours = [np.full((2, 3), n, np.float32) for n in range(4)]
    gathered = ALONE.gathered(ours, 4)
    assert all((a == b).all() for a, b in zip(ours, gathered, strict=True))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"train\.device"):
        device_of("cuda", setting="train.device")


def test_each_rank_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto", local_rank=3) == torch.device("cuda", 3)
    assert device_of("cpu", local_rank=3) == torch.device("cpu")


def exchange(units: int) -> None:
    """Check, in one of three processes, all that they exchange."""
    with joined("cpu", patience=PATIENCE) as world:
        assert world.size == 3
        assert world.sum([world.rank, 0.5]) == [3, 1.5]
        assert world.max(world.rank) == 2
        world.wait()
        gathered = world.gathered([unit_of(unit) for unit in world.share(units)], units)
        assert len(gathered) == units
        for unit, result in enumerate(gathered):
            np.testing.assert_array_equal(result, unit_of(unit))


def unit_of(unit: int) -> NDArray[np.float32]:
    return np.full((unit % 3 + 1, 2), unit, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("units", [1, 7])
def test_every_process_gets_every_unit_in_order(units: int) -> None:
    assert together(3, partial(exchange, units)) == [0, 0, 0]


def join_inside() -> None:
    """Check that a world within a world is that world, and leaves it as it was."""
    with joined("cpu", patience=PATIENCE) as outer:
        for _ in range(2):
            with joined("cpu", patience=2 * PATIENCE) as inner:
                assert inner == outer
                assert inner.sum([1]) == [2]
            assert outer.sum([1]) == [2]
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_a_world_within_a_world_is_that_world() -> None:
    assert together(2, join_inside) == [0, 0]
