"""Tell transformers of SemVLP when it is imported, and not before: neither waits for the other.

Its Auto classes find a model type by tables of names, and import `transformers.models.TYPE` for
what a name stands for when it is first asked for. So `import semvlp` adds a name to two tables as
soon as their modules are there, and stands itself for the module `transformers.models.semvlp`:
the classes, and torch with them, are imported by who opens a checkpoint.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

MODEL_TYPE = "semvlp"
TABLES = {
    "transformers.models.auto.configuration_auto": ("CONFIG_MAPPING_NAMES", "SemVLPConfig"),
    "transformers.models.auto.processing_auto": ("PROCESSOR_MAPPING_NAMES", "SemVLPProcessor"),
}


def announce() -> None:
    """Add the names to the tables that are there, and have them added to the others in time."""
    for name in TABLES:
        if name in sys.modules:
            _add(sys.modules[name])
    if not all(name in sys.modules for name in TABLES):
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported:
    """A finder that finds nothing new, but adds the names once a module with a table has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in TABLES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def then_add(module: ModuleType) -> None:
            execute(module)
            _add(module)

        spec.loader.exec_module = then_add  # type: ignore[method-assign]
        return spec


def _add(module: ModuleType) -> None:
    table, name = TABLES[module.__name__]
    # Another version of transformers may have no such table; then `import semvlp.model` registers.
    vars(module).get(table, {}).setdefault(MODEL_TYPE, name)
    sys.modules[f"transformers.models.{MODEL_TYPE}"] = sys.modules["semvlp"]
