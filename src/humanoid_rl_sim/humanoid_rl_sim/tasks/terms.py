"""How reward and termination terms are found by name and their parameters checked."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from humanoid_rl_core.errors import UserError, nearest


def bind_term(
    module: ModuleType, kind: str, name: str, parameters: Mapping[str, Any], task: str
) -> Callable[..., torch.Tensor]:
    """The public function `name` of `module` with its named parameters filled in.

    Raises:
        UserError: no such term, an unknown parameter or a missing one; names the nearest valid name.
    """
    terms = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    }
    if name not in terms:
        raise UserError(f"task {task}: unknown {kind} '{name}'{nearest(name, list(terms))}")
    function = terms[name]
    signature = inspect.signature(function)
    accepted = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for key in parameters:
        if key not in accepted:
            raise UserError(f"task {task}: {kind} '{name}' has no parameter '{key}'{nearest(key, accepted)}")
    for key in accepted:
        if key not in parameters and signature.parameters[key].default is inspect.Parameter.empty:
            raise UserError(f"task {task}: {kind} '{name}' needs the parameter '{key}'")
    return functools.partial(function, **parameters)
