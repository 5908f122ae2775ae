"""A GPU that is not there: tensors on it have a shape and no numbers, those on the CPU are real.

Whatever would wait for a GPU fails on it: PyTorch itself refuses to tell a number or a size that
depends on numbers (`item`, `nonzero`, indexing with a mask), and copies are looked at here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class FakeGpu(TorchDispatchMode):
    """Inside, "cuda" is the fake GPU, and to wait for it is an AssertionError or PyTorch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = FakeTensorMode(allow_non_fake_inputs=True)
        self.locked: list[Tensor] = []
        """What was page-locked, kept so that no other tensor gets its place."""

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        target = kwargs.get("device")
        there = target is not None and torch.device(target).type == GPU.type
        if not there and not any(isinstance(tensor, FakeTensor) for tensor in inputs):
            return func(*args, **kwargs)
        with self.shapes:
            result = func(*args, **kwargs)
        if func in COPIES:
            # The second argument of `copy_` is the source.
            self._check(
                inputs[-1], result, bool(kwargs.get("non_blocking") or args[2:3] == (True,))
            )
        return result

    def _check(self, source: Tensor, result: Tensor, non_blocking: bool) -> None:
        if source.device.type == result.device.type or not source.numel():
            return
        assert result.device.type == GPU.type, "copying from the GPU waits for it"
        places = [tensor.untyped_storage().data_ptr() for tensor in self.locked]
        locked = source.untyped_storage().data_ptr() in places
        assert non_blocking, "a blocking copy to the GPU waits for it"
        assert locked, "copying to the GPU waits unless the memory is page-locked"


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """An H100 of that kind, for a while."""
    gpu = FakeGpu()

    def lock(tensor: Tensor) -> Tensor:
        gpu.locked.append(tensor.clone())
        return gpu.locked[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "pin_memory", lock)
        patch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        if not torch.cuda.is_available():
            patch.setattr(torch.cuda, "_lazy_init", lambda: None)
            patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
            patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        with gpu:
            yield gpu


def see_gpus(patch: pytest.MonkeyPatch, count: int, kind: str = "cuda") -> None:
    """Let PyTorch see `count` accelerators of one kind; nothing can run on them."""
    accelerator = torch.device(kind) if count else None
    patch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: accelerator)
    patch.setattr(torch.accelerator, "device_count", lambda: count)
