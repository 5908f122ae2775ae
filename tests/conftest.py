"""What every test may use: the real data, where they are; a browser; a log as it was before."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything of semvlp is imported, here or in a process of its own.
os.environ["SEMVLP_CHECK_SHAPES"] = "1"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout, or at SEMVLP_REAL_DATA."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEMVLP_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}; set SEMVLP_REAL_DATA")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, as Playwright drives it; no longer than a module: it runs an event loop."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright, of semvlp[dev]"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as started:
        # Root, as in a container, has no sandbox.
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """A command sets how much is logged, by its flags and its rank; the next test starts anew."""
    logger = logging.getLogger("semvlp")
    # Fixtures of a whole module may run commands before its first test.
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(logging.NOTSET)
