"""Schedulers of torch as terms of a specification: the rate is the daemon's."""
from __future__ import annotations

import math
import warnings
from typing import Any


def schedule(scheduler: Any) -> str:
    """The term that stands for a scheduler of torch.optim.lr_scheduler, such as
    ``"cosine(20000, end=1e-05)"``: add it to the specification, and drop the scheduler."""
    kind = type(scheduler).__name__
    s = scheduler
    if kind == "StepLR":
        return f"step({s.step_size}, gamma={s.gamma!r})"
    if kind == "ExponentialLR":
        return f"exponential(1, gamma={s.gamma!r})"
    if kind == "PolynomialLR":
        return f"polynomial({s.total_iters}, power={float(s.power)!r})"
    if kind == "CosineAnnealingLR":
        warnings.warn(f"after {s.T_max} steps torch's cosine climbs again; the daemon's rate "
                      "stays at its end", stacklevel=2)
        return f"cosine({s.T_max}, end={float(s.eta_min)!r})"
    if kind == "LinearLR":
        steps = s.total_iters + 1
        if s.end_factor == 1 and math.isclose(s.start_factor, 1 / steps, rel_tol=1e-6):
            return f"warmup({steps})"
        raise TypeError(f"LinearLR from {s.start_factor} to {s.end_factor} in {s.total_iters} "
                        "steps has no counterpart; warmup(n) is LinearLR(start_factor=1/n, "
                        "total_iters=n-1)")
    raise TypeError(f"{kind} has no counterpart; there are warmup, step, exponential, "
                    "polynomial and cosine. With lead=True one worker sends its own rates")
