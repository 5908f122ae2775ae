"""Any number of processes: every unit once, the same files to the byte."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.eval.network import open_network
from tests.fake_gpu import see_gpus
from tests.ports import free_port

SCRIPT = """
import sys
from pathlib import Path
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.tasks.table import load_task
shards, out, *given = sys.argv[1:]
for name, checkpoint, annotations in zip(given[::3], given[1::3], given[2::3]):
    evaluate(load_task(name), Path(checkpoint), [Path(annotations)], shards, Path(out) / name,
             EvalOptions(split="test", mode="both", batch_size=1, device="cpu"))
"""


@pytest.mark.parametrize(("rank", "speaks"), [("0", True), ("1", False)])
def test_only_the_first_process_prints_its_result(
    rank: str, speaks: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert run(cli, "semvlp", ["detector", "list", "--json"]) == 0
    assert bool(capsys.readouterr().out) == speaks


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_process_of_a_machine_answers_on_a_gpu_of_its_own(
    device: str, checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    see_gpus(monkeypatch, 2)
    network = open_network(checkpoint("nlvr"), device=device, batch_size=1)
    assert network.device == "cuda:1"


def _run(world: int, script: str, *arguments: object) -> None:
    """Run a script in `world` processes that know each other as torchrun's do."""
    port = free_port()
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={**os.environ, **where, "WORLD_SIZE": str(world), "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    ended = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert all(code == 0 for _, code in ended), ended


@pytest.mark.slow
def test_files_do_not_depend_on_the_number_of_processes(
    checkpoint: Callable[..., Path],
    official: dict[str, Path],
    shards: Path,
    tmp_path: Path,
) -> None:
    """18 batches of NLVR; 2 images in 1 block, so that of 4 processes 3 have nothing to do."""
    names = ("nlvr", "retrieval")
    given = [part for name in names for part in (name, checkpoint(name), official[name])]
    written = []
    for world in (1, 2, 4):
        out = tmp_path / f"of-{world}"
        _run(world, SCRIPT, shards, out, *given)
        paths = [path for path in out.rglob("*.*") if path.name != "provenance.json"]
        written.append({path.relative_to(out): path.read_bytes() for path in paths})
    assert len(written[0]) == 6
    assert written[0] == written[1] == written[2]
