"""Shapes in signatures: every public function of tensors has them, and tests check them."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, get_args, get_origin

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from numpy import ndarray
from torch import Tensor

import semvlp.model
from semvlp import shapes
from semvlp.model.layers.embeddings import box_numbers
from semvlp.model.packing import row_indices

MODULES = [
    *(each.name for each in pkgutil.walk_packages(semvlp.model.__path__, "semvlp.model.")),
    "semvlp.train.objectives",
    "semvlp.train.data.masking",
    "semvlp.extract.presets",
]


def test_a_wrong_shape_raises() -> None:
    assert box_numbers(torch.rand(2, 4), 5).shape == (2, 5)
    with pytest.raises(TypeCheckError, match=r"'boxes'"):
        box_numbers(torch.rand(2, 5), 4)
    with pytest.raises(TypeCheckError, match=r"'lengths'"):
        row_indices(torch.tensor([0, 2]), torch.tensor([2]))


def test_a_wrong_dtype_raises() -> None:
    with pytest.raises(TypeCheckError, match=r"'starts'"):
        row_indices(torch.tensor([0.0]), torch.tensor([1]))


def test_a_wrong_result_raises() -> None:
    @shapes.shapes
    def halved(rows: Float[Tensor, "L D"]) -> Float[Tensor, "L D"]:  # noqa: F722
        return rows[::2]

    with pytest.raises(TypeCheckError, match="return value"):
        halved(torch.rand(4, 2))


def test_what_is_compiled_is_not_checked() -> None:
    compiled = torch.compile(box_numbers, backend="eager", fullgraph=True)
    assert compiled(torch.rand(2, 5), 4).shape == (2, 5)


def test_outside_tests_nothing_is_wrapped() -> None:
    script = """
import sys
from semvlp.shapes import CHECKED, shapes
assert not CHECKED
assert shapes(print) is print
assert not {"beartype", "jaxtyping", "torch"} & set(sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if "SHAPES" not in name}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_of_tensors_has_shapes(name: str) -> None:
    for function in public_functions(importlib.import_module(name)):
        hints = inspect.get_annotations(inspect.unwrap(function))
        shapeless = [argument for argument, hint in hints.items() if has_no_shape(hint)]
        assert not shapeless, f"{function.__qualname__}: {', '.join(shapeless)}"
        if any(map(has_shape, hints.values())):
            assert hasattr(function, "__wrapped__"), f"{function.__qualname__} is not checked"


def public_functions(module: ModuleType) -> Iterator[Callable[..., Any]]:
    """Yield the functions that a module defines and the methods of its classes."""
    classes = [each for each in vars(module).values() if inspect.isclass(each)]
    for owner in (module, *classes):
        for name, member in vars(owner).items():
            function = getattr(member, "__func__", member)
            here = getattr(function, "__module__", None) == module.__name__
            if inspect.isfunction(function) and here and not name.startswith("_"):
                yield function


def has_no_shape(hint: Any) -> bool:
    """Tell whether a type holds arrays without a shape; a collection's have no common one."""
    if get_origin(hint) in (dict, Mapping, Sequence):
        return False
    array = get_origin(hint) or hint
    return array in (Tensor, ndarray) or any(map(has_no_shape, get_args(hint)))


def has_shape(hint: Any) -> bool:
    return hasattr(hint, "dim_str") or any(map(has_shape, get_args(hint)))
