"""Parameters of torch by their names, for the optimizers."""
from __future__ import annotations

from typing import Any, Dict, List, Tuple

import torch

#: What wrappers put before names: DataParallel, torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")


def plain_name(name: str) -> str:
    """A name without those of wrappers."""
    changed = True
    while changed:
        changed = False
        for wrapper in _WRAPPERS:
            if name.startswith(wrapper):
                name, changed = name[len(wrapper):], True
    return name.replace("._orig_mod.", ".")


def _pairs(params: Any) -> List[Tuple[str, torch.nn.Parameter]]:
    if isinstance(params, torch.nn.Module):
        params = params.named_parameters()
    found = []
    for entry in params:
        if isinstance(entry, torch.Tensor):
            raise TypeError("parameters need names, by which workers find each other's: give "
                            "model.named_parameters() instead of model.parameters()")
        name, parameter = entry
        found.append((plain_name(name), parameter))
    return found


def groups_of(params: Any) -> List[Tuple[List[Tuple[str, torch.nn.Parameter]],
                                         Dict[str, Any]]]:
    """Named parameters, or groups of them, as (pairs, options): those that train, each
    once, by its first name."""
    entries = list(params.named_parameters() if isinstance(params, torch.nn.Module)
                   else params)
    groups = ([(_pairs(e["params"]), {k: v for k, v in e.items() if k != "params"})
               for e in entries]
              if entries and isinstance(entries[0], dict) else [(_pairs(entries), {})])
    seen: Dict[int, str] = {}
    names: Dict[str, int] = {}
    result = []
    for pairs, options in groups:
        kept = []
        for name, parameter in pairs:
            check(name, parameter)
            if id(parameter) in seen:
                continue  # tied to one before
            if name in names:
                raise ValueError(f"two parameters have the name {name!r}")
            seen[id(parameter)] = name
            names[name] = id(parameter)
            kept.append((name, parameter))
        result.append((kept, options))
    if not any(parameter.requires_grad for pairs, _ in result for _, parameter in pairs):
        raise ValueError("no parameter requires a gradient")
    return result


def check(name: str, parameter: Any) -> None:
    """Whether a parameter can be a tensor of a model."""
    if not isinstance(parameter, torch.Tensor):
        raise TypeError(f"{name!r} is no tensor but {type(parameter).__name__}")
    if type(parameter).__name__ in ("FlatParameter", "DTensor"):
        raise TypeError(f"{name!r} is a {type(parameter).__name__}: each process has a part of "
                        "it only, which no model here can be made of")
    if not parameter.is_floating_point():
        raise TypeError(f"{name!r} is of {parameter.dtype}; only real numbers can be trained")
