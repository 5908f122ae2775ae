"""Shapes of tensors in signatures, which are checked wherever SEMVLP_CHECK_SHAPES is 1: in tests.

`Float[Tensor, "L D"]` is a tensor of any floating dtype with two dimensions. A letter stands for
one size throughout a call, `_` for any size, `*S` for any dimensions (docs.kidger.site/jaxtyping).
The first lines of a file say what its letters mean.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

CHECKED = os.environ.get("SEMVLP_CHECK_SHAPES") == "1"

F = TypeVar("F", bound=Callable[..., Any])


def shapes(function: F) -> F:
    """Return `function` itself; where shapes are checked, with its arguments and result checked.

    What torch.compile traces is not checked.
    """
    return cast(F, _checked(function)) if CHECKED else function


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    # Only those who check need beartype.
    import torch
    from beartype import BeartypeConf, beartype
    from jaxtyping import jaxtyped

    # An int is a float, as type checkers have it (PEP 484).
    checked = jaxtyped(typechecker=beartype(conf=BeartypeConf(is_pep484_tower=True)))(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        compiling = torch.compiler.is_compiling()
        return (function if compiling else checked)(*args, **kwargs)

    return call
