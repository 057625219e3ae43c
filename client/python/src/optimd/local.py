"""Local steps with torch: a worker runs ahead, and synchronises every k steps.

:class:`Local` has the worker's optimizer in the library, with the weights in its memory;
:class:`Outer` leaves any torch optimizer alone, also on other devices.
"""
from __future__ import annotations

from types import TracebackType
from typing import Any, Callable, Dict, List, Optional, Type, Union

import numpy as np
import torch

from optimd import errors
from optimd.client import Client, connect
from optimd.models import Model
from optimd.named import groups_of
from optimd.records import Fate, LocalResult, Policy, Result
from optimd.values import Table

#: What outer rules are called by. Each is the model's specification.
OUTER = {
    "diloco": "nag(momentum_form=heavy_ball, nesterov_form=reformulated, lr=0.7, momentum=0.9)",
    "local_sgd": "sgd(lr=1)",
    "lookahead": "sgd(lr=0.5)",
}


class _Shared:
    """What both have: the parameters, and the model of slow weights."""

    def __init__(self, params: Any, server: Union[str, Client, None], *, model: str,
                 outer: str, k: int, worker: Optional[str], policy: Optional[Policy],
                 timeout: Optional[float], push_dtype: str, pull_dtype: str) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; it is at least 1")
        groups = groups_of(params)
        if len(groups) != 1 or groups[0][1]:
            raise TypeError("local steps have one group of parameters; what differs between "
                            "them belongs to the worker's own optimizer")
        pairs = [(n, p) for n, p in groups[0][0] if p.requires_grad]
        self._names: List[str] = [n for n, _ in pairs]
        self._parameters: List[torch.Tensor] = [p for _, p in pairs]
        self.k = k
        self.outer = OUTER.get(outer, outer)
        self._owns = not isinstance(server, Client)
        self.client: Client = server if isinstance(server, Client) else connect(
            server, worker=worker, timeout=timeout, push_dtype=push_dtype,
            pull_dtype=pull_dtype)
        try:
            self.model: Model = self.client.create(
                model, self.outer,
                {n: p.detach().to("cpu", torch.float32).contiguous() for n, p in pairs},
                policy=policy)
        except BaseException:
            if self._owns:
                self.client.close()
            raise

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's."""
        for parameter in self._parameters:
            if parameter.grad is None:
                continue
            if set_to_none:
                parameter.grad = None
            else:
                parameter.grad.detach_().zero_()

    def close(self) -> None:
        """Leave the rounds; steps since the last synchronisation stay this worker's."""
        self.model.close()
        if self._owns:
            self.client.close()

    def __exit__(self, kind: Optional[Type[BaseException]],
                 error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def __getstate__(self) -> Any:
        raise TypeError("local steps are of one process; make them in each")


class Local(_Shared):
    """An optimizer of this worker's own, in the library, which synchronises every ``k``
    steps: local SGD, DiLoCo, Lookahead over workers.

    ``specification`` is the worker's rule, ``outer`` what the daemon makes of the mean of
    the workers' ways: ``"diloco"``, ``"local_sgd"``, ``"lookahead"``, or an expression. The
    parameters are fp32 on the processor; from now on their values are in the library's
    memory, so that a step copies nothing. ``result`` is what came of the last step."""

    def __init__(self, params: Any, server: Union[str, Client, None], specification: str, *,
                 model: str, outer: str = "diloco", k: int = 500, momentum: str = "keep",
                 worker: Optional[str] = None, policy: Optional[Policy] = None,
                 timeout: Optional[float] = None, push_dtype: str = "fp32",
                 pull_dtype: str = "fp32") -> None:
        super().__init__(params, server, model=model, outer=outer, k=k, worker=worker,
                         policy=policy, timeout=timeout, push_dtype=push_dtype,
                         pull_dtype=pull_dtype)
        try:
            for name, parameter in zip(self._names, self._parameters):
                if parameter.dtype is not torch.float32 or parameter.device.type != "cpu":
                    raise TypeError(f"{name!r} is {parameter.dtype} on {parameter.device}; the "
                                    "library's steps are of fp32 on the processor: use Outer")
            self._local = self.model.local(specification, k, momentum=momentum,
                                           timeout=timeout)
        except BaseException:
            super().close()
            raise
        for name, parameter in zip(self._names, self._parameters):
            parameter.data = torch.from_numpy(self._local._view(name, False))
        self._numbers = [self.model._layout.find(n) for n in self._names]
        self.result = LocalResult(0, 0, False, False, Result())

    def step(self, closure: Optional[Callable[[], Any]] = None, *, samples: int = 1) -> Any:
        """Make one local step, and synchronise if it is the k-th since the last time. While
        a synchronisation is owed (``owes``) it makes up for that, and uses no gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        table = Table(len(self._names))
        row = 0
        for number, parameter in zip(self._numbers, self._parameters):
            gradient = parameter.grad
            if gradient is None:
                continue
            gradient = gradient.detach().to(torch.float32).contiguous()
            table.keep.append(gradient)
            table.words[row] = (number, gradient.data_ptr(), 0, 0)
            row += 1
        table.count = row
        if row == 0:
            raise errors.FailedPrecondition(
                "no parameter has a gradient: backward() comes before step()")
        self.result = self._local._step(table, samples)
        return loss

    def sync(self) -> LocalResult:
        """Synchronise now: what is owed, or before k steps have been made."""
        self.result = self._local.sync()
        return self.result

    def restart(self) -> LocalResult:
        """Give up the steps since the last synchronisation."""
        self.result = self._local.restart()
        return self.result

    @property
    def owes(self) -> bool:
        """Whether a synchronisation has failed and is to be made up for."""
        return self._local.owes

    def close(self) -> None:
        """Leave the rounds. The parameters get memory of their own again."""
        if not self._local._closing:
            for parameter in self._parameters:
                parameter.data = parameter.data.clone()
            self._local.close()
        super().close()

    def __enter__(self) -> Local:
        return self

    def __repr__(self) -> str:
        return (f"Local (\n    model: {self.model.name!r} at {self.client.address}\n    "
                f"specification: {self._local.specification}\n    outer: "
                f"{self.model.specification}\n    k: {self.k}\n    steps: "
                f"{self.result.steps}\n)")


class Outer(_Shared):
    """Any optimizer of torch's, and a synchronisation every ``k`` of its steps: what is
    pushed is slow minus fast weights, and the fast ones go on from what the daemon makes of
    all workers'. For other devices and fused optimizers; with the inner optimizer's state
    left alone."""

    def __init__(self, inner: torch.optim.Optimizer, params: Any,
                 server: Union[str, Client, None], *, model: str, outer: str = "diloco",
                 k: int = 500, worker: Optional[str] = None,
                 policy: Optional[Policy] = None, timeout: Optional[float] = None,
                 push_dtype: str = "fp32", pull_dtype: str = "fp32") -> None:
        super().__init__(params, server, model=model, outer=outer, k=k, worker=worker,
                         policy=policy, timeout=timeout, push_dtype=push_dtype,
                         pull_dtype=pull_dtype)
        self.inner = inner
        self._slow: Dict[str, np.ndarray[Any, Any]] = dict(self.model.pull(self._names))
        self._way = {n: np.empty_like(w) for n, w in self._slow.items()}
        self._take_slow()
        self._steps = self._samples = 0
        self._owed: Optional[str] = None  # "push" or "pull"
        self.steps = 0
        self.result = Result()

    @property
    def param_groups(self) -> List[Dict[str, Any]]:
        """The inner optimizer's."""
        groups: List[Dict[str, Any]] = self.inner.param_groups
        return groups

    @property
    def owes(self) -> bool:
        """Whether a synchronisation has failed and is to be made up for."""
        return self._owed is not None

    def _take_slow(self) -> None:
        with torch.no_grad():
            for name, parameter in zip(self._names, self._parameters):
                parameter.copy_(torch.from_numpy(self._slow[name]))

    def step(self, closure: Optional[Callable[[], Any]] = None, *, samples: int = 1) -> Any:
        """Make a step of the inner optimizer's, and synchronise if it is the k-th since the
        last time. While a synchronisation is owed it makes up for that instead."""
        if self._owed is not None:
            self.sync()
            return None
        if samples < 1:
            raise errors.InvalidArgument(f"samples is {samples}; it is at least 1")
        loss = self.inner.step(closure) if closure is not None else self.inner.step()
        self.steps += 1
        self._steps += 1
        self._samples += samples
        if self._steps >= self.k:
            self.sync()
        return loss

    def sync(self) -> Result:
        """Synchronise now: what is owed, or before k steps have been made. The push counts
        once at most: if it is not known what became of it, it is given up."""
        if self._owed is None:
            if self._steps == 0:
                return self.result
            with torch.no_grad():
                for name, parameter in zip(self._names, self._parameters):
                    fast = parameter.detach().to("cpu", torch.float32).numpy()
                    np.subtract(self._slow[name], fast, out=self._way[name])
        if self._owed != "pull":
            self._owed = "pull"  # if this is interrupted, nobody knows
            try:
                self.result = self.model.push_pull(self._way, into=self._slow,
                                                   samples=self._samples)
            except errors.Error as error:
                fate = Fate.NOT_KNOWN if error.result is None else error.result.fate
                if fate == Fate.NOT_APPLIED:
                    self._owed = "push"
                raise
        else:
            self.result = self.model.pull(into=self._slow).result
        self._owed = None
        self._steps = self._samples = 0
        self._take_slow()
        return self.result

    def __enter__(self) -> Outer:
        return self

    def __repr__(self) -> str:
        inner = repr(self.inner).replace("\n", "\n    ")
        return (f"Outer (\n    model: {self.model.name!r} at {self.client.address}\n    outer: "
                f"{self.model.specification}\n    k: {self.k}\n    inner: {inner}\n)")
