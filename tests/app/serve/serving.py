"""A server as a program of its own, from its address to Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.documents import ROOT

SECONDS = 120


@dataclass
class Served:
    """A server: where it is, and, once it has ended, what it has printed."""

    base: str
    token: str
    asked: httpx2.Client
    code: int | None = None
    out: str = ""


@contextmanager
def serving(arguments: Sequence[str], cwd: Path | None = None) -> Iterator[Served]:
    """Run `semvlp serve` on a free port while inside, and then press Ctrl-C."""
    command = [sys.executable, "-m", "semvlp.cli", "serve", "--port", "0", *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if line.startswith("Open "):
                break
        else:
            raise AssertionError("".join(told))
        base, _, token = line.split()[1].partition("?token=")
        with httpx2.Client(base_url=base, timeout=SECONDS, trust_env=False) as asked:
            served = Served(base, token, asked)
            _wait(asked)
            yield served
        process.send_signal(signal.SIGINT)
        served.out, _ = process.communicate(timeout=SECONDS)
        served.code = process.returncode


def _wait(asked: httpx2.Client) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            asked.get("about")
            return
        except httpx2.ConnectError:
            assert time.monotonic() < deadline
