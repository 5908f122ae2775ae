"""The benchmark of training: it runs as documented, and what is too large ends only itself."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from semvlp.model.semvlp import SemVLPPreTrainedModel

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """(name) -> a script of benchmarks/, whose neighbours are imported by their bare names."""
    monkeypatch.syspath_prepend(FOLDER)
    yield __import__
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_benchmark_can_be_imported_and_tells_its_options(
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    module = script(name)
    assert module.__doc__
    if hasattr(module, "main"):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
        with pytest.raises(SystemExit, match=r"^0$"):
            module.main()
        assert capsys.readouterr().out.startswith(f"usage: {name}.py")


# Dynamo itself looks at `.grad` of what it traces, and warns of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.slow
def test_a_network_that_memory_does_not_hold_ends_only_itself(
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train = script("train")
    loss_of, compile_blocks = train.loss_of, SemVLPPreTrainedModel.compile_blocks

    def with_little_memory(name: str, model: Any, pairs: Any) -> Callable[[], torch.Tensor]:
        if name == "LXMERT" and pairs.batch.num_pairs > 2:
            # More than any machine has: the allocator itself says so.
            return lambda: torch.empty(2**58, dtype=torch.uint8)
        found: Callable[[], torch.Tensor] = loss_of(name, model, pairs)
        return found

    def traced(model: SemVLPPreTrainedModel) -> None:
        # Traced as for a GPU, but run as it is: making C++ of it takes minutes.
        compile_blocks(model, backend="aot_eager")

    monkeypatch.setattr(train, "loss_of", with_little_memory)
    monkeypatch.setattr(SemVLPPreTrainedModel, "compile_blocks", traced)
    sizes = ["--preset", "tiny", "--batch-sizes", "2", "3", "4", "--rounds", "1"]
    more = ["--compile", "--no-memory", "--waiting-steps", "0", "--peak-tflops", "1"]
    monkeypatch.setattr(sys, "argv", ["train.py", *sizes, *more])
    train.main()
    told = capsys.readouterr().out
    tables = told.split("batch of ")[1:]
    assert [table.split()[0] for table in tables] == ["2", "3", "4"]
    assert ["| LXMERT | out of memory |" in table for table in tables] == [False, True, True]
    assert all("% of 1 (aim at the best batch size: at least 45%)" in table for table in tables)
    assert "nan" not in told
