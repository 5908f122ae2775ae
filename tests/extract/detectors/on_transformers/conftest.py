"""The folders of small detectors of transformers, each saved once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForObjectDetection

from tests.extract.detectors.on_transformers.small_networks import saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(network) -> its folder."""
    made: dict[str, Path] = {}

    def path(make: Callable[[], tuple[Any, Any]], auto: Any = AutoModelForObjectDetection) -> Path:
        if make.__name__ not in made:
            new = tmp_path_factory.mktemp(make.__name__)
            made[make.__name__] = saved(new, *make(), auto)
        return made[make.__name__]

    return path
