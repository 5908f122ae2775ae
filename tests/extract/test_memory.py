"""Memory of an extraction does not grow with the number of images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

DRIVER = Path(__file__).with_name("measured_extraction.py")
ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, FEW = 1200, 800, 40
DECODED = WIDTH * HEIGHT * 3
# Decoded images by which two runs may differ: allocators keep what threads gave back.
SLACK = FEW // 2


def folder_of(tmp_path: Path, count: int) -> Path:
    """Names of one file, which is small until it is decoded."""
    folder = tmp_path / f"{count} images"
    folder.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(folder / "0.jpg")
    for number in range(1, count):
        os.link(folder / "0.jpg", folder / f"{number}.jpg")
    return folder


def added(images: Path, out: Path, images_per_pass: int) -> int:
    """Bytes by which a process of its own grew at most."""
    arguments = [images, out, images_per_pass]
    done = subprocess.run(
        [sys.executable, str(DRIVER), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("images_per_pass", [1, 8])
def test_four_times_the_images_take_no_more_memory(tmp_path: Path, images_per_pass: int) -> None:
    few, many = (
        added(folder_of(tmp_path, count), tmp_path / f"out {count}", images_per_pass)
        for count in (FEW, 4 * FEW)
    )
    print(f"{few / 1e6:.0f} MB for {FEW} images, {many / 1e6:.0f} MB for {4 * FEW}")
    assert few > 2 * DECODED
    assert many - few < SLACK * DECODED
