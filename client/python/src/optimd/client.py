"""Clients: connections that heal themselves, and the questions that a daemon answers.

Every method that waits can be interrupted, and may be called from any thread.
"""
from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from types import TracebackType
from typing import (Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type,
                    TypeVar, Union)

import numpy as np

from optimd import _lib, errors
from optimd._lib import lib
from optimd.calls import OK, Users, wait_in_thread
from optimd.models import Model
from optimd.records import (Description, ModelInfo, Policy, Result, Tensor, Usage,
                            dtype_number, milliseconds, tensor_array, view_number)
from optimd.values import address_of, to_read

T = TypeVar("T")
_Path = Union[str, "os.PathLike[str]"]

_DEFAULT_SERVER = "127.0.0.1:7070"


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """A connection that heals itself. Made by :func:`optimd.connect`; a context
    manager."""

    def __init__(self, handle: int, address: str, worker: Optional[str],
                 pull_dtype: str) -> None:
        self.address = address
        self.observer = worker == ""
        self.pull_dtype = pull_dtype
        self._handle: Optional[int] = handle
        self._process = os.getpid()
        self._users = Users(f"the client of {address}")
        self._models: weakref.WeakSet[Model] = weakref.WeakSet()
        self._calls: Dict[int, Any] = weakref.WeakValueDictionary()  # type: ignore[assignment]
        self._orphans: List[Tuple[int, Any]] = []
        self._telling: Optional[threading.Thread] = None
        self._telling_lock = threading.RLock()
        self._left = False  # closed, but for what is still looked at
        self._told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _clients.add(self)

    # -- what is lent to calls that nobody waits for

    def _reap(self) -> None:
        """Free calls that were dropped early and have ended."""
        if not self._orphans:
            return
        orphans, kept = self._orphans, []
        self._orphans = []
        for handle, keep in orphans:
            if lib.call_done(handle):
                lib.call_free(handle)
            else:
                kept.append((handle, keep))
        self._orphans += kept

    def _start_telling(self) -> None:
        """Have the thread that runs callbacks of calls."""
        with self._telling_lock, self._users:
            if self._telling is None:
                fd = lib.ended_fd(self._handle)
                if fd < 0:
                    raise errors.last(errors.ResourceExhausted.code)
                self._telling = threading.Thread(
                    target=self._tell, args=(fd,), name="optimd callbacks", daemon=True)
                self._telling.start()

    def _tell(self, fd: int) -> None:
        import select
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._told[0], select.POLLIN)
        while not self._users.closing:
            poll.poll()
            self._finish_ended()

    def _finish_ended(self) -> None:
        """See to the calls that have ended; with callbacks of theirs."""
        while True:
            try:
                with self._users:
                    handle = lib.ended(self._handle)
            except errors.FailedPrecondition:
                return
            if not handle:
                return
            call = self._calls.get(handle)
            if call is not None:
                call._finish()

    def _ask(self, work: Callable[[], T]) -> T:
        """Do what waits, so that it can be interrupted. It is counted as inside until it
        has ended, also if nobody wants to know any more."""
        def counted() -> T:
            with self._users:
                return work()

        return wait_in_thread(counted)

    # -- models

    def create(self, name: str, specification: str, tensors: Mapping[str, Any], *,
               policy: Optional[Policy] = None, sparse: Sequence[str] = ()) -> Model:
        """Create a model, or open it if it is there with the same definition, and join its
        rounds.

        ``tensors`` are the first weights by their names, used by whoever comes first; a
        tuple of numbers instead is a shape, of zeros. ``sparse`` names the tables whose
        gradients come by rows."""
        unknown = [s for s in sparse if s not in tensors]
        if unknown:
            raise errors.InvalidArgument(f"sparse names {unknown[0]!r}, which is no tensor")
        entries: List[Tensor] = []
        initial: List[Optional[np.ndarray[Any, Any]]] = []
        for key, value in tensors.items():
            if isinstance(value, tuple):
                entries.append(Tensor(key, tuple(int(n) for n in value), key in sparse))
                initial.append(None)
            else:
                shape = tuple(int(n) for n in np.shape(value)) if not hasattr(
                    value, "shape") else tuple(int(n) for n in value.shape)
                entries.append(Tensor(key, shape, key in sparse))
                initial.append(to_read(value, shape, f"tensor {key!r}"))
        raw = tensor_array(entries)
        values: Any = None
        if any(array is not None for array in initial):
            zeros = [np.zeros(t.shape, dtype=np.float32) if array is None else array
                     for t, array in zip(entries, initial)]
            values = (ctypes.c_void_p * len(zeros))(*(address_of(z) for z in zeros))
        else:
            zeros = []

        def create() -> Model:
            out = ctypes.c_void_p()
            status = lib.create(
                self._handle, name.encode(), specification.encode(),
                None if policy is None else ctypes.byref(policy.raw()), raw,
                len(entries), values, ctypes.byref(out))
            return self._model(status, out, name, zeros)

        return self._ask(create)

    def open(self, name: str, join: Optional[bool] = None) -> Model:
        """Open a model that is there. ``join``: take part in its rounds; so unless this
        client is an observer."""
        joins = not self.observer if join is None else join

        def open_() -> Model:
            out = ctypes.c_void_p()
            status = lib.open(self._handle, name.encode(), int(joins), ctypes.byref(out))
            return self._model(status, out, name, None)

        return self._ask(open_)

    def import_(self, name: str, specification: str, path: Union[str, os.PathLike[str]], *,
                policy: Optional[Policy] = None, sparse: Sequence[str] = ()) -> Model:
        """Create a model of the tensors of a .safetensors file."""
        names = (ctypes.c_char_p * max(1, len(sparse)))(*(s.encode() for s in sparse))
        options = _lib.ImportOptions(sparse=names, sparse_count=len(sparse))

        def import_file() -> Model:
            out = ctypes.c_void_p()
            status = lib.import_(
                self._handle, name.encode(), specification.encode(),
                None if policy is None else ctypes.byref(policy.raw()), os.fsencode(path),
                ctypes.byref(options), ctypes.byref(out))
            return self._model(status, out, name, names)

        return self._ask(import_file)

    def _model(self, status: int, out: ctypes.c_void_p, name: str, keep: Any) -> Model:
        if status != OK:
            raise errors.last(status)
        del keep
        assert out.value is not None
        return Model(self, out.value, name)

    def export(self, name: str, path: Union[str, os.PathLike[str]], *, view: str = "train",
               dtype: str = "fp32", slots: bool = False,
               timeout: Optional[float] = None) -> Result:
        """Write a model to a .safetensors file, all of one step; ``slots``: with the
        optimizer's state."""
        options = _lib.ExportOptions(
            view=view_number(view), dtype=dtype_number("dtype", dtype), slots=int(slots),
            timeout_ms=milliseconds("timeout", timeout))

        def export_file() -> Result:
            raw = _lib.Result()
            status = lib.export(self._handle, name.encode(), os.fsencode(path),
                                ctypes.byref(options), ctypes.byref(raw))
            if status != OK:
                raise errors.last(status)
            return Result.of(raw)

        return self._ask(export_file)

    # -- questions

    def describe(self, name: str) -> Description:
        """A model in words and numbers."""
        def describe() -> Description:
            out = ctypes.POINTER(_lib.Description)()
            status = lib.describe(self._handle, name.encode(), ctypes.byref(out))
            if status != OK:
                raise errors.last(status)
            try:
                return Description.of(out.contents)
            finally:
                lib.description_free(out)

        return self._ask(describe)

    def list(self) -> List[ModelInfo]:
        """The models of the daemon."""
        def list_() -> List[ModelInfo]:
            out = ctypes.POINTER(_lib.ModelInfo)()
            count = ctypes.c_size_t()
            status = lib.list(self._handle, ctypes.byref(out), ctypes.byref(count))
            if status != OK:
                raise errors.last(status)
            found = [ModelInfo(m.name.decode(), m.specification.decode("utf-8", "replace"),
                               m.step, m.tensors, m.parameters, m.workers)
                     for m in (out[i] for i in range(count.value))]
            lib.list_free(out)
            return found

        return self._ask(list_)

    def statistics(self) -> Dict[str, int]:
        """The daemon's counters."""
        def statistics() -> Dict[str, int]:
            out = ctypes.POINTER(_lib.Counter)()
            count = ctypes.c_size_t()
            status = lib.statistics(self._handle, ctypes.byref(out), ctypes.byref(count))
            if status != OK:
                raise errors.last(status)
            found = {out[i].name.decode(): int(out[i].value) for i in range(count.value)}
            lib.statistics_free(out)
            return found

        return self._ask(statistics)

    def set(self, name: str, change: str, at_step: int = 0) -> int:
        """Change options of a model that runs, such as ``"lr=5e-4"``; returns the number of
        the first update with it."""
        def set_() -> int:
            step = ctypes.c_uint64()
            status = lib.set(self._handle, name.encode(), change.encode(), at_step,
                             ctypes.byref(step))
            if status != OK:
                raise errors.last(status)
            return step.value

        return self._ask(set_)

    def delete(self, name: str) -> None:
        """Delete a model and its state."""
        def delete() -> None:
            status = lib.delete(self._handle, name.encode())
            if status != OK:
                raise errors.last(status)

        self._ask(delete)

    def usage(self) -> Usage:
        """What this client has done so far. Never waits."""
        raw = _lib.Usage()
        with self._users:
            lib.usage(self._handle, ctypes.byref(raw))
        return Usage.of(raw)

    # -- the end

    @property
    def closed(self) -> bool:
        return self._users.closing

    def close(self) -> None:
        """Say goodbye and close all models; calls in progress end with Cancelled. Memory of
        the library's that is still looked at stays, but is not kept from changes."""
        if os.getpid() != self._process or not self._users.close():
            return
        _clients.discard(self)
        for model in list(self._models):
            model.close()
        lib.leave(self._handle)
        for call in list(self._calls.values()):
            call.cancel()
        os.write(self._told[1], b"x")
        if self._telling is not None and self._telling is not threading.current_thread():
            self._telling.join()
        self._users.wait()
        for model in list(self._models):  # that was only being opened
            model.close()
        for handle, _keep in self._orphans:
            lib.call_free(handle)
        self._orphans = []
        for fd in self._told:
            os.close(fd)
        self._left = True
        self._free_if_left()

    def _free_if_left(self) -> None:
        """Free the client, unless memory of a model's is still looked at: then the last view
        does."""
        with self._telling_lock:
            if self._left and not any(m._handle is not None for m in self._models):
                self._left = False
                handle, self._handle = self._handle, None
                lib.close(handle)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_told"):
            self.close()

    def __repr__(self) -> str:
        return (f"<optimd.Client of {self.address}"
                + (", observer" if self.observer else "")
                + (", closed>" if self.closed else ">"))

    def __reduce__(self) -> Any:
        raise TypeError("a client is of one process; make one in each")


def connect(address: Optional[str] = None, *, worker: Optional[str] = None,
            timeout: Optional[float] = None, connect_timeout: Optional[float] = None,
            push_dtype: str = "fp32", pull_dtype: str = "fp32", checksum: bool = False,
            shared_memory: bool = True, spin_us: int = 0,
            ca: Optional[_Path] = None, cert: Optional[_Path] = None,
            key: Optional[_Path] = None, token_file: Optional[_Path] = None) -> Client:
    """Connect to a daemon at ``"HOST:PORT"`` or ``"unix:/PATH"``; None: to what
    OPTIMD_SERVER in the environment says, or 127.0.0.1:7070.

    ``worker`` is this process's name (None: host, process and something random; ``""``: an
    observer, who only pulls). ``timeout`` is that of each call, ``connect_timeout`` how
    long to wait for a daemon that is not there yet, both in seconds (30). ``push_dtype``
    and ``pull_dtype`` are what gradients and weights travel as: fp32, bf16, fp16.
    ``checksum``: what is damaged on its way is sent again. ``ca``, ``cert`` and ``key`` are
    files of TLS, ``token_file`` has the token to log in with; None: what OPTIMD_CA,
    OPTIMD_CERT, OPTIMD_KEY and OPTIMD_TOKEN_FILE in the environment say."""
    where = address or os.environ.get("OPTIMD_SERVER") or _DEFAULT_SERVER
    options = _lib.Options(
        worker=None if worker is None else worker.encode(),
        timeout_ms=milliseconds("timeout", timeout),
        connect_timeout_ms=milliseconds("connect_timeout", connect_timeout),
        push_dtype=dtype_number("push_dtype", push_dtype),
        pull_dtype=dtype_number("pull_dtype", pull_dtype), checksum=int(checksum),
        no_shared_memory=int(not shared_memory), spin_us=spin_us,
        **{name: None if path is None else os.fsencode(path) for name, path in (
            ("ca", ca), ("cert", cert), ("key", key), ("token_file", token_file))})
    abandoned = threading.Event()

    def open_connection() -> Optional[Client]:
        out = ctypes.c_void_p()
        status = lib.connect(where.encode(), ctypes.byref(options), ctypes.byref(out))
        if status != OK:
            raise errors.last(status)
        assert out.value is not None
        if abandoned.is_set():
            lib.close(out.value)
            return None
        return Client(out.value, where, worker, pull_dtype)

    try:
        client = wait_in_thread(open_connection)
    except BaseException:
        abandoned.set()
        raise
    assert client is not None
    return client


@atexit.register
def _close_all() -> None:
    """Before the interpreter goes: calls in progress end, connections say goodbye."""
    for client in list(_clients):
        client.close()


def _after_fork() -> None:
    """In a child: what is inherited belongs to the parent."""
    _clients.clear()


os.register_at_fork(after_in_child=_after_fork)
