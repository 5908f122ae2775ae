"""What is written for torch: read back, and a full disk told by its name."""

from pathlib import Path

import pytest
import torch

from semvlp.torch_file import load_torch, save_torch


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_torch({"step": torch.tensor(3.0), "names": ["a"]}, tmp_path / "x.pt")
    assert load_torch(tmp_path / "x.pt") == {"step": torch.tensor(3.0), "names": ["a"]}


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_full_disk_is_told_by_its_name(size: int) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        save_torch({"state": torch.zeros(size)}, Path("/dev/full"))
