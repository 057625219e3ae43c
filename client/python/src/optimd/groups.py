"""Groups of parameters as terms of a specification: tensors("PATTERN", ...), the fewest
patterns that say exactly this of these names."""
from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple

#: What a group may say, and the specification's word for it.
OPTIONS = ("weight_decay", "lr_scale")


def matches(pattern: str, name: str) -> bool:
    """As the daemon matches: * is any text, ? one character."""
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c)
                         for c in pattern)
    return re.fullmatch(expression, name, re.DOTALL) is not None


def _candidates(name: str) -> List[str]:
    """Patterns that match a name, the widest first."""
    parts = name.split(".")
    found = ["*"]
    found += ["*." + ".".join(parts[i:]) for i in range(len(parts) - 1, 0, -1)]
    found += [".".join(parts[:i]) + ".*" for i in range(1, len(parts))]
    if len(parts) > 2:
        found += [f"{parts[0]}.*.{parts[-1]}"]
    return found + [name]


def patterns(wanted: Sequence[str], others: Sequence[str]) -> List[str]:
    """Few patterns that match all names that are wanted and none of the others."""
    left: Set[str] = set(wanted)
    found: List[str] = []
    while left:
        best, best_hits = "", set()  # type: Tuple[str, Set[str]]
        for name in sorted(left):
            for pattern in _candidates(name):
                if any(matches(pattern, other) for other in others):
                    continue
                hits = {n for n in left if matches(pattern, n)}
                if len(hits) > len(best_hits):
                    best, best_hits = pattern, hits
        if not best:
            name = sorted(left)[0]
            raise ValueError(f"no pattern tells {name!r} from the others")
        found.append(best)
        left -= best_hits
    return found


def terms(groups: Sequence[Tuple[Sequence[str], Mapping[str, Any]]]) -> str:
    """The terms of groups of names with their options, each beginning with " + "."""
    said: List[str] = []
    every = [name for names, _ in groups for name in names]
    for names, options in groups:
        unknown = [key for key in options if key not in OPTIONS]
        if unknown:
            hint = ("; say lr_scale, its ratio to the specification's rate"
                    if unknown[0] == "lr" else "; it belongs into the specification")
            raise TypeError(f"a group of parameters has {unknown[0]!r}, which cannot differ "
                            f"between tensors{hint}. A group can have: {', '.join(OPTIONS)}")
        if not options:
            continue
        chosen: Dict[str, float] = {key: float(value) for key, value in options.items()}
        words = ", ".join(f"{key}={value!r}" for key, value in chosen.items())
        mine = set(names)
        for pattern in patterns(names, [n for n in every if n not in mine]):
            if '"' in pattern:
                raise ValueError(f"the name {pattern!r} has a quote in it, which no pattern "
                                 "can have")
            said.append(f' + tensors("{pattern}", {words})')
    return "".join(said)
