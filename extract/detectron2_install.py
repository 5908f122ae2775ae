"""How detectron2 is installed, and what is said where it cannot be imported."""

from semvlp.errors import ConfigError

SOURCE = (
    "git+https://github.com/facebookresearch/detectron2.git"
    "@02b5c4e295e990042a714712c21dc79b731e8833"
)
"""It is not on PyPI and has had no release since 2021; this is the state everything here was tried
with."""
BUILD = (
    "It is built from source: pip install 'setuptools<81', then pip install --no-build-isolation "
    f"'{SOURCE}'"
)
SETUPTOOLS = "pip install 'setuptools<81', because newer ones have no pkg_resources"


def without_detectron2(error: ImportError | OSError, what: str) -> ConfigError:
    """What to say where the import of detectron2, which `what` needs, raised `error`.

    A compiled part that was built for another torch is an ImportError, a library that is not there
    an OSError.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else ""
    if missing == "pkg_resources":
        return ConfigError(f"{what} needs detectron2, whose model zoo needs more: {SETUPTOOLS}")
    if missing == "detectron2":
        return ConfigError(f"{what} needs detectron2, which is not installed. {BUILD}")
    return ConfigError(
        f"{what} needs detectron2, which is there but cannot be imported ({error}); "
        "`semvlp doctor` says what to do"
    )
