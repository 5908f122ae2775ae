"""The world of a plain run: one process that never touches torch.distributed."""

from typing import Any

import pytest
import torch
from torch import nn

from semvlp.errors import ConfigError
from semvlp.train.distributed import device_of, joined


def test_a_plain_run_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as world:
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        assert not torch.distributed.is_initialized()
        assert world.sum([1.0, 2.5]) == [1.0, 2.5]
        world.wait()
        assert world.max(2.5) == 2.5
        module: Any = nn.Linear(1, 1)
        assert world.share(module, module, "ddp") is module


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"train\.device"):
        device_of("cuda")


def test_each_rank_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto", local_rank=3) == torch.device("cuda", 3)
    assert device_of("cpu", local_rank=3) == torch.device("cpu")
