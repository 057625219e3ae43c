"""Models, plans, local steps: what is pushed, pulled and waited for.

Every method that waits can be interrupted, and may be called from any thread; what is then
not wanted any more is cancelled.
"""
from __future__ import annotations

import ctypes
import os
import threading
import weakref
from types import TracebackType
from typing import (TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence,
                    Tuple, Type, TypeVar)

import numpy as np

from optimd import _lib, errors
from optimd._lib import lib
from optimd.calls import OK, PIECE_MS, Call, Users, wait_in_thread
from optimd.records import (Description, Fate, LocalResult, Result, Tensor, form_number,
                            milliseconds, momentum_number, view_number)
from optimd.values import Layout, Table

if TYPE_CHECKING:
    from optimd.client import Client

S = TypeVar("S")


class Weights(Dict[str, Any]):
    """Arrays by their tensors' names, all of one step; ``result`` is that of the pull."""

    result: Result = Result()

    @property
    def step(self) -> int:
        return self.result.step


class Memory:
    """Memory of the library's, for NumPy: holds its owner until the last view is gone."""

    def __init__(self, owner: Any, address: int, shape: Tuple[int, ...],
                 read_only: bool) -> None:
        self._owner = owner
        self.__array_interface__ = {"version": 3, "typestr": "<f4", "shape": shape,
                                    "data": (address, read_only)}


class Model:
    """An open model. Made by :meth:`Client.create` and :meth:`Client.open`; a context
    manager, which leaves the model's rounds at its end."""

    def __init__(self, client: Client, handle: int, name: str) -> None:
        self.client = client
        self.name = name
        self._handle: Optional[int] = handle
        self._users = Users(f"model {name!r}")
        self._views = 0
        self._views_lock = threading.RLock()
        self.specification: str = lib.model_specification(handle).decode()
        self._layout = Layout([Tensor.of(lib.model_tensor(handle, i).contents)
                               for i in range(lib.model_tensors(handle))])
        self._step = 0
        self._fresh: Optional[Tuple[Any, Weights]] = None
        client._models.add(self)

    @property
    def tensors(self) -> Dict[str, Tensor]:
        """The model's tensors by their names, in its order."""
        return {t.name: t for t in self._layout.tensors}

    @property
    def step(self) -> int:
        """The highest step of the model that this object has seen."""
        return self._step

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._users.closing else f", step {self._step}"
        return (f"<optimd.Model {self.name!r} at {self.client.address}: "
                f"{self.specification}{state}>")

    def __reduce__(self) -> Any:
        raise TypeError("a model is of one process; open it in each")

    # -- starting calls

    def _options(self, samples: int, form: str, basis: int,
                 timeout: Optional[float]) -> _lib.PushOptions:
        if samples < 1:
            raise errors.InvalidArgument(f"samples is {samples}; it is at least 1")
        return _lib.PushOptions(samples=samples, form=form_number(form), basis=basis,
                                timeout_ms=milliseconds("timeout", timeout))

    def _pull_options(self, view: str, min_step: int, since: int,
                      timeout: Optional[float], slot: Optional[str]) -> _lib.PullOptions:
        return _lib.PullOptions(
            view=2 if slot is not None else view_number(view),
            slot=None if slot is None else slot.encode(), min_step=min_step, since=since,
            timeout_ms=milliseconds("timeout", timeout))

    def _note(self, result: Result) -> Result:
        if result.step > self._step:
            self._step = result.step
        return result

    def _start(self, what: str, arguments: Tuple[Any, ...], keep: Any,
               convert: Callable[[Result], S]) -> Call[S]:
        out = ctypes.c_void_p()
        with self._users:
            self.client._reap()
            status = getattr(lib, what)(self._handle, *arguments, None, None,
                                        ctypes.addressof(out))
            if status != OK:
                error = errors.last(status)
                if what != "pull_start":
                    error.result = Result(Fate.NOT_APPLIED)
                raise error
            assert out.value is not None
            return Call(self, out.value, keep, convert)

    # -- pushing and pulling

    def push_async(self, gradients: Mapping[str, Any], *, samples: int = 1,
                   form: str = "mean", basis: int = 0,
                   timeout: Optional[float] = None) -> Call[Result]:
        """As :meth:`push`, without waiting. Arrays are lent to the call until it ends."""
        table = self._layout.gradients(gradients)
        options = self._options(samples, form, basis, timeout)
        return self._start("push_start",
                           (table.address, table.count, ctypes.addressof(options)),
                           (table, options), self._note)

    def push(self, gradients: Mapping[str, Any], *, samples: int = 1, form: str = "mean",
             basis: int = 0, timeout: Optional[float] = None) -> Result:
        """Push gradients by their tensors' names as one contribution, and wait for its fate;
        in sync mode that is when the round has closed.

        ``samples`` is how many the gradient covers, ``form`` whether it is that of the mean
        or of the sum of their losses, ``basis`` the step of the weights it was computed
        from (0: that of the last pull)."""
        return self.push_async(gradients, samples=samples, form=form, basis=basis,
                               timeout=timeout)._result_or_cancel()

    def pull_async(self, names: Optional[Sequence[str]] = None, *,
                   into: Optional[Mapping[str, Any]] = None, view: str = "train",
                   slot: Optional[str] = None, min_step: int = 0, since: int = 0,
                   timeout: Optional[float] = None) -> Call[Weights]:
        """As :meth:`pull`, without waiting. Arrays are lent to the call until it ends."""
        if into is None:
            into = self._layout.new_weights(
                [t.name for t in self._layout.tensors] if names is None else names)
        elif names is not None:
            raise TypeError("into says which tensors; names must not be given as well")
        table = self._layout.weights(into)
        options = self._pull_options(view, min_step, since, timeout, slot)
        weights = Weights(into)

        def convert(result: Result) -> Weights:
            weights.result = self._note(result)
            return weights

        return self._start("pull_start",
                           (table.address, table.count, ctypes.addressof(options)),
                           (table, options), convert)

    def pull(self, names: Optional[Sequence[str]] = None, *,
             into: Optional[Mapping[str, Any]] = None, view: str = "train",
             slot: Optional[str] = None, min_step: int = 0, since: int = 0,
             timeout: Optional[float] = None) -> Weights:
        """Pull weights, all of one step, as arrays by their names (fp32).

        ``into``: memory to write instead of new arrays; ``view``: train or eval; ``slot``:
        a state array of the optimizer instead, such as ``"exp_avg"``; ``min_step``: wait
        until the model has had so many updates; ``since``: the memory has everything as it
        was at that step, and only what has changed need come."""
        return self.pull_async(names, into=into, view=view, slot=slot, min_step=min_step,
                               since=since, timeout=timeout)._result_or_cancel()

    def push_pull_async(self, gradients: Mapping[str, Any], *, into: Mapping[str, Any],
                        samples: int = 1, form: str = "mean", basis: int = 0,
                        view: str = "train",
                        timeout: Optional[float] = None) -> Call[Result]:
        """As :meth:`push_pull`, without waiting. Arrays are lent to the call until it
        ends."""
        pushed = self._layout.gradients(gradients)
        pulled = self._layout.weights(into)
        options = self._options(samples, form, basis, timeout)
        pull = self._pull_options(view, 0, 0, None, None)
        return self._start(
            "push_pull_start",
            (pushed.address, pushed.count, ctypes.addressof(options), pulled.address,
             pulled.count, ctypes.addressof(pull)), (pushed, pulled, options, pull),
            self._note)

    def push_pull(self, gradients: Mapping[str, Any], *, into: Mapping[str, Any],
                  samples: int = 1, form: str = "mean", basis: int = 0,
                  view: str = "train", timeout: Optional[float] = None) -> Result:
        """Push, and pull the weights that it made into ``into``, in one round trip."""
        return self.push_pull_async(gradients, into=into, samples=samples, form=form,
                                    basis=basis, view=view,
                                    timeout=timeout)._result_or_cancel()

    def plan(self, gradients: Mapping[str, Any], into: Mapping[str, Any], *,
             view: str = "train") -> Plan:
        """For the same arrays in each step: they are looked at once, here. Gradients have
        to be fp32 and contiguous, as they are read where they are."""
        return Plan(self, gradients, into, view)

    def refresh(self, target: Any, *, view: str = "train",
                timeout: Optional[float] = None) -> bool:
        """Bring a torch module, or a dict of arrays, up to date. False: nothing is new.
        A module gets the parameters and buffers that the model has, by their names."""
        if hasattr(target, "state_dict"):
            mine: Dict[str, Any] = {k: v for k, v in target.state_dict().items()
                                    if k in self._layout.number}
        else:
            mine = dict(target)
        if not mine:
            raise errors.InvalidArgument("no tensor of the model is in what is to be "
                                         "refreshed")
        key = (target, view)
        known = self._fresh
        fresh = known is not None and known[0][0] is target and known[0][1] == view
        cache = known[1] if fresh and known is not None else Weights(
            self._layout.new_weights(list(mine)))
        before = cache.step if fresh else 0
        self._fresh = None  # what a failed pull leaves is not known
        weights = self.pull(into=cache, view=view, since=before, timeout=timeout)
        self._fresh = (key, weights)
        if fresh and weights.step == before:
            return False
        for name, value in mine.items():
            if hasattr(value, "copy_"):
                import torch
                with torch.no_grad():
                    value.copy_(torch.from_numpy(weights[name]))
            else:
                value[...] = weights[name]
        return True

    # -- memory in place

    def _memory(self, address: int, shape: Tuple[int, ...], read_only: bool
                ) -> np.ndarray[Any, Any]:
        memory = Memory(self, address, shape, read_only)
        with self._views_lock:
            self._views += 1
        weakref.finalize(memory, self._view_gone).atexit = False
        return np.asarray(memory)

    def _view_gone(self) -> None:
        with self._views_lock:
            self._views -= 1
        if self._views == 0 and self._users.closing:
            self._free()

    def gradient(self, name: str) -> np.ndarray[Any, Any]:
        """Memory of the model's own for a gradient: what is pushed from here is read where
        it is by a daemon that shares memory with this process. To be asked for before the
        first push."""
        number = self._layout.find(name)
        with self._users:
            address = lib.gradient(self._handle, number)
            if not address:
                raise errors.last(errors.FailedPrecondition.code)
            return self._memory(address, self._layout.tensors[number].shape, False)

    def pull_in_place(self, *, min_step: int = 0, timeout: Optional[float] = None) -> Result:
        """Pull all tensors to where :meth:`weights` shows them."""
        options = self._pull_options("train", min_step, 0, timeout, None)
        return self._start("pull_start", (None, 0, ctypes.addressof(options)), options,
                           self._note)._result_or_cancel()

    def weights(self, name: str) -> np.ndarray[Any, Any]:
        """The weights of a tensor after :meth:`pull_in_place`, read-only, where the daemon
        has computed them if it shares memory. They stay as they are until the next pull in
        place begins; they must not be looked at after that."""
        number = self._layout.find(name)
        with self._users:
            address = lib.weights(self._handle, number)
            if not address:
                raise errors.FailedPrecondition("nothing has been pulled in place")
            return self._memory(address, self._layout.tensors[number].shape, True)

    # -- the others

    def _wait_call(self, function: str, *arguments: int) -> Result:
        def wait() -> Result:
            raw = _lib.Result()
            with self._users:
                status = getattr(lib, function)(self._handle, *arguments,
                                                ctypes.addressof(raw))
                if status != OK:
                    raise errors.last(status)
            return self._note(Result.of(raw))

        return wait_in_thread(wait)

    def wait_step(self, step: int, timeout: Optional[float] = None) -> Result:
        """Wait until the model has had ``step`` updates."""
        return self._wait_call("wait_step", step, milliseconds("timeout", timeout))

    def wait_epoch(self, epoch: int, timeout: Optional[float] = None) -> Result:
        """Wait until the model has had ``epoch`` Lookahead epochs."""
        return self._wait_call("wait_epoch", epoch, milliseconds("timeout", timeout))

    def wait_durable(self, step: int, timeout: Optional[float] = None) -> Result:
        """Wait until the model's first ``step`` updates are on the daemon's disk."""
        return self._wait_call("wait_durable", step, milliseconds("timeout", timeout))

    def barrier(self, timeout: Optional[float] = None) -> Result:
        """Wait until every worker of the model is here."""
        return self._wait_call("barrier", milliseconds("timeout", timeout))

    def rest(self) -> None:
        """Rounds do not wait for this worker until it pushes again."""
        def rest() -> None:
            with self._users:
                status = lib.rest(self._handle)
                if status != OK:
                    raise errors.last(status)

        wait_in_thread(rest)

    def lost(self) -> List[str]:
        """The workers whose loss was told since this was last asked."""
        found = []
        name = ctypes.create_string_buffer(256)
        with self._users:
            while lib.lost(self._handle, name, len(name)):
                found.append(name.value.decode())
        return found

    def describe(self) -> Description:
        """The model in words and numbers, as the daemon has it now."""
        return self.client.describe(self.name)

    def set(self, change: str, at_step: int = 0) -> int:
        """As :meth:`Client.set`."""
        return self.client.set(self.name, change, at_step)

    def local(self, specification: str, k: int, *, momentum: str = "keep",
              alpha: float = 0.0, steps: int = 0,
              timeout: Optional[float] = None) -> Local:
        """Begin local steps: an optimizer of this worker's own, which synchronises every
        ``k`` steps. The model's specification is the outer rule."""
        if k < 1:
            raise errors.InvalidArgument(f"k is {k}; it is at least 1")
        options = _lib.LocalOptions(momentum=momentum_number(momentum), alpha=alpha,
                                    steps=steps, timeout_ms=milliseconds("timeout", timeout))

        def open_local() -> int:
            out = ctypes.c_void_p()
            with self._users:
                status = lib.local_open(self._handle, specification.encode(), k,
                                        ctypes.byref(options), ctypes.byref(out))
                if status != OK:
                    raise errors.last(status)
            assert out.value is not None
            return out.value

        return Local(self, wait_in_thread(open_local), specification, k)

    # -- the end

    @property
    def closed(self) -> bool:
        return self._users.closing

    def close(self) -> None:
        """Leave the rounds; calls in progress end with Cancelled. What is still looked at
        (:meth:`gradient`, :meth:`weights`) stays until it is not."""
        if os.getpid() != self.client._process or not self._users.close():
            return
        lib.model_leave(self._handle)
        for call in [c for c in list(self.client._calls.values()) if c._model is self]:
            call.cancel()
        self._users.wait()
        with self._views_lock:
            if self._views == 0:
                self._free()

    def _free(self) -> None:
        with self._views_lock:
            handle, self._handle = self._handle, None
        if handle is not None and os.getpid() == self.client._process:
            lib.model_close(handle)
            self.client._free_if_left()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None and not self.client.closed:
            self.close()


class Exchange:
    """Push from one table and pull into another, again and again: what a plan and an
    optimizer do in each step. Between two runs the tables may be written."""

    def __init__(self, model: Model, pushed: Table, pulled: Table, view: str = "train"
                 ) -> None:
        self.model = model
        self.pushed = pushed
        self.pulled = pulled
        self._push = _lib.PushOptions()
        self._pull = _lib.PullOptions(view=view_number(view))
        self._push_at = ctypes.addressof(self._push)
        self._pull_at = ctypes.addressof(self._pull)
        self._out = ctypes.c_void_p()
        self._out_at = ctypes.addressof(self._out)
        self._raw = _lib.Result()
        self._raw_at = ctypes.addressof(self._raw)
        self._lock = threading.Lock()
        self._asked: Any = None  # what stands in the options

    def run(self, samples: int, timeout: Optional[float] = None, since: int = 0) -> Result:
        """Push what the tables say, and pull."""
        if samples < 1:
            raise errors.InvalidArgument(f"samples is {samples}; it is at least 1")
        model = self.model
        text = ""
        with self._lock, model._users:
            if (samples, timeout, since) != self._asked:
                self._push.timeout_ms = milliseconds("timeout", timeout)
                self._push.samples = samples
                self._pull.since = since
                self._asked = (samples, timeout, since)
            status = lib.push_pull_start(
                model._handle, self.pushed.address, self.pushed.count, self._push_at,
                self.pulled.address, self.pulled.count, self._pull_at, None, None,
                self._out_at)
            if status != OK:
                error = errors.last(status)
                error.result = Result(Fate.NOT_APPLIED)
                raise error
            call = self._out.value
            try:
                while not lib.call_wait_for(call, PIECE_MS):
                    pass
            except BaseException:
                lib.call_cancel(call)
                lib.call_free(call)
                raise
            status = lib.call_wait(call, self._raw_at)
            result = Result.of(self._raw)
            if status != OK or result.fate is Fate.DROPPED:
                text = (lib.call_error(call) or b"").decode("utf-8", "replace")
                result = result._replace(reason=text)
            detail = self._raw.detail if status != OK else 0
            lib.call_free(call)
        if status != OK:
            raise errors.make(status, text, detail, result._replace(reason=""))
        return model._note(result)


class Plan:
    """The same arrays in each step, looked at once. Made by :meth:`Model.plan`."""

    def __init__(self, model: Model, gradients: Mapping[str, Any], into: Mapping[str, Any],
                 view: str) -> None:
        self.model = model
        pushed = model._layout.gradients(gradients)
        for (name, value), array in zip(gradients.items(), pushed.keep):
            if not np.shares_memory(array, np.asarray(value)):
                raise TypeError(f"gradient {name!r} of a plan has to be fp32 and contiguous "
                                "in C order: it is read where it is in each step")
        self._exchange = Exchange(model, pushed, model._layout.weights(into), view)

    def push_pull(self, samples: int = 1, *, timeout: Optional[float] = None) -> Result:
        """Push the gradients' arrays as they are now, and pull into the weights'."""
        return self._exchange.run(samples, timeout)

    def __repr__(self) -> str:
        return (f"<optimd.Plan of {self.model.name!r}: {self._exchange.pushed.count} "
                f"gradients, {self._exchange.pulled.count} weights>")


class Local:
    """Local steps of a worker: fast weights and an optimizer of its own in the library.
    Made by :meth:`Model.local`; a context manager."""

    def __init__(self, model: Model, handle: int, specification: str, k: int) -> None:
        self.model = model
        self.specification = specification
        self.k = k
        self._handle: Optional[int] = handle
        self._lock = threading.RLock()
        self._views = 0
        self._closing = False
        self._since = 0  # steps since the last synchronisation
        with model._views_lock:  # it ends before its model does
            model._views += 1

    def view(self, name: str) -> np.ndarray[Any, Any]:
        """Where the next gradient of a tensor is to be taken: the fast weights, always in
        the same memory, read-only. Each step changes them."""
        return self._view(name, True)

    def _view(self, name: str, read_only: bool) -> np.ndarray[Any, Any]:
        number = self.model._layout.find(name)
        with self._lock:
            self._check()
            memory = Memory(self, lib.local_view(self._handle, number),
                            self.model._layout.tensors[number].shape, read_only)
            self._views += 1
            weakref.finalize(memory, self._view_gone).atexit = False
            return np.asarray(memory)

    def _view_gone(self) -> None:
        with self._lock:
            self._views -= 1
            if self._closing and self._views == 0:
                self._free()

    def _check(self) -> None:
        if self._closing:
            raise errors.FailedPrecondition("these local steps are closed")

    def _run(self, function: str, *arguments: Any) -> LocalResult:
        raw = _lib.LocalResult()
        with self._lock, self.model._users:
            self._check()
            status = getattr(lib, function)(self._handle, *arguments, ctypes.byref(raw))
            if status != OK:
                raise errors.last(status)
            result = LocalResult.of(raw)
            self._since = 0 if result.synced else self._since + int(result.stepped)
        self.model._note(result.sync)
        return result

    def step(self, gradients: Mapping[str, Any], samples: int = 1) -> LocalResult:
        """Make one local step, and synchronise if it is the k-th since the last time."""
        return self._step(self.model._layout.gradients(gradients), samples)

    def _step(self, table: Table, samples: int) -> LocalResult:
        if samples < 1:
            raise errors.InvalidArgument(f"samples is {samples}; it is at least 1")

        def step() -> LocalResult:
            return self._run("local_step", table.address, table.count, samples)

        if self._since + 1 < self.k and not self.owes:
            return step()  # it waits for nobody
        return wait_in_thread(step)

    def sync(self) -> LocalResult:
        """Synchronise now: what is owed, or before k steps have been made."""
        return wait_in_thread(lambda: self._run("local_sync"))

    def restart(self) -> LocalResult:
        """Give up the steps since the last synchronisation and go on from the model's
        weights."""
        return wait_in_thread(lambda: self._run("local_restart"))

    @property
    def owes(self) -> bool:
        """Whether a synchronisation has failed and is made up for by the next call."""
        with self._lock:
            self._check()
            return bool(lib.local_owes(self._handle))

    def close(self) -> None:
        """Forget the steps since the last synchronisation. Views stay as long as they are
        looked at."""
        with self._lock:
            if self._closing or os.getpid() != self.model.client._process:
                return
            self._closing = True
            if self._views == 0:
                self._free()

    def _free(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.local_close(handle)
            self.model._view_gone()

    def __enter__(self) -> Local:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return (f"<optimd.Local of {self.model.name!r}: {self.specification}, "
                f"k={self.k}{', closed' if self._closing else ''}>")
