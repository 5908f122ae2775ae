"""The processes of a run: alone nothing is exchanged, together everyone gets the same."""

from datetime import timedelta
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semvlp.distributed import ALONE, World, device_of, joined, pins_memory, precision_of
from semvlp.errors import ConfigError
from tests.fake_gpu import see_gpus
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


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_auto_precision_is_bf16_where_the_device_multiplies_it(
    kind: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    capabilities = {"avx512_bf16": native, "amx_bf16": False, "avx2": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    device = torch.device(kind, 0)
    expected = "bf16" if native and kind != "mps" else "fp32"
    assert precision_of("auto", device) == expected
    assert [precision_of(name, device) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


@pytest.mark.parametrize("size", [1, 2, 4, 7])
@pytest.mark.parametrize("units", [0, 1, 5, 8])
def test_shares_are_a_partition(size: int, units: int) -> None:
    shares = [list(World(rank, size).share(units)) for rank in range(size)]
    assert sorted(unit for share in shares for unit in share) == list(range(units))


def test_alone_nothing_is_exchanged() -> None:
    ours = [np.full((2, 3), n, np.float32) for n in range(4)]
    gathered = ALONE.gathered(ours, 4)
    assert all((a == b).all() for a, b in zip(ours, gathered, strict=True))


@pytest.mark.parametrize("there", [("cuda", 4), ("xpu", 4), ("mps", 1), ("cuda", 0)])
def test_auto_takes_what_is_there(there: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    kind, count = there
    see_gpus(monkeypatch, count, kind)
    assert device_of("cpu", local_rank=3) == torch.device("cpu")
    if not count:
        assert device_of("auto", local_rank=3) == torch.device("cpu")
        return
    last = torch.device(kind, count - 1)
    assert device_of("auto") == device_of(kind) == torch.device(kind, 0)
    for name in ("auto", kind, str(last)):
        assert device_of(name, local_rank=count - 1) == last
    assert device_of(f"{kind}:0", local_rank=count - 1) == torch.device(kind, 0)


def test_under_torchrun_each_process_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    see_gpus(monkeypatch, 4)
    assert device_of("auto") == torch.device("cuda", 3)


@pytest.mark.parametrize(
    ("device", "there", "message"),
    [
        ("cuda", ("cuda", 0), r"train\.device must be auto or cpu, got 'cuda'"),
        ("cuda", ("xpu", 2), r"train\.device must be auto, cpu or xpu, got 'cuda'"),
        ("mps:0", ("cuda", 2), r"train\.device must be auto, cpu or cuda, got 'mps:0'"),
        ("cuda:2", ("cuda", 2), r"train\.device 'cuda:2' needs 3 cuda devices .* sees 2"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    device: str, there: tuple[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, count = there
    see_gpus(monkeypatch, count, kind)
    with pytest.raises(ConfigError, match=message):
        device_of(device, setting="train.device")


@pytest.mark.parametrize("device", ["auto", "xpu"])
def test_more_processes_than_devices_are_refused(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_gpus(monkeypatch, 2, "xpu")
    with pytest.raises(ConfigError, match=r"needs 4 xpu devices .*local rank 3.* sees 2;"):
        device_of(device, local_rank=3)


@pytest.mark.parametrize(
    ("device", "backend"),
    [("cpu", "gloo"), ("cuda", "cpu:gloo,cuda:nccl"), ("xpu", "cpu:gloo,xpu:xccl")],
)
def test_numbers_travel_between_cpus_and_gradients_between_devices(
    device: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    formed: dict[str, object] = {}
    for name, value in {"RANK": "2", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    see_gpus(monkeypatch, 2, device)
    monkeypatch.setattr(
        torch.accelerator, "set_device_index", lambda device: formed.update(device=device)
    )
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda backend, timeout: formed.update(backend=backend, timeout=timeout),
    )
    monkeypatch.setattr(
        torch.distributed, "destroy_process_group", lambda: formed.update(left=True)
    )
    with joined(device, patience=PATIENCE) as world:
        ours = torch.device(device, 1) if device != "cpu" else torch.device("cpu")
        assert world == World(2, 4, 1, ours)
        current = {} if device == "cpu" else {"device": ours}
        assert formed == {"backend": backend, "timeout": PATIENCE, **current}
    assert formed["left"]


def test_memory_is_locked_for_devices_that_have_their_own() -> None:
    pinned = [
        kind for kind in ("cpu", "cuda", "xpu", "mps", "meta") if pins_memory(torch.device(kind))
    ]
    assert pinned == ["cuda", "xpu"]


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
