"""Recipes that come with the package: files of settings that `--config` takes by their names."""

import difflib
from pathlib import Path

from semvlp.errors import ConfigError

RECIPES: dict[str, Path] = {
    path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))
}
"""The file of each recipe."""


def find_config(given: Path) -> Path:
    """Return the file of settings that `given` is the path of, or the name of as a recipe.

    Raises:
        ConfigError: it is neither; the message lists the recipes.
    """
    if given.exists() and not given.is_dir():
        return given
    is_name = given.parent == Path() and given.suffix in ("", ".toml")
    if is_name and given.stem in RECIPES:
        return RECIPES[given.stem]
    near = difflib.get_close_matches(given.stem, RECIPES, n=1)
    hint = f"did you mean --config {near[0]}? " if near else ""
    raise ConfigError(
        f"{given}: no such configuration file, and no recipe of this name; {hint}"
        f"recipes: {', '.join(RECIPES)}"
    )


def purpose(recipe: str) -> str:
    """Return what a recipe is for, the first line of its file."""
    with RECIPES[recipe].open(encoding="utf-8") as lines:
        return next(lines).lstrip("# ").rstrip(":\n")
