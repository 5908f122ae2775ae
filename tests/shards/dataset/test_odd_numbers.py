"""Every number in the files that describe a data set may be anything: one error, bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.documents import ROOT

LEAST = 500


def test_every_odd_number_is_one_error_with_the_file_or_changes_nothing(tmp_path: Path) -> None:
    """The process has three GiB of address space and two minutes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.shards.dataset.odd_numbers", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["wrong"] == []
    assert told["tried"] >= LEAST
