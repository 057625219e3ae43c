"""Calls in progress, and how this package waits: started calls are waited for in pieces of
a tenth of a second, between which Python sees to signals. Any thread."""
from __future__ import annotations

import concurrent.futures
import ctypes
import threading
import warnings
from typing import TYPE_CHECKING, Any, Callable, Generic, List, Optional, TypeVar

from optimd import _lib, errors
from optimd._lib import lib
from optimd.records import Result

if TYPE_CHECKING:
    from optimd.models import Model

T = TypeVar("T")

PIECE_MS = 100  # how long a wait is deaf to signals
OK = 0


def wait_in_thread(work: Callable[[], T]) -> T:
    """Run what only ends at its deadline, so that the caller can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        return work()  # signals are the main thread's
    done = threading.Event()
    outcome: List[Any] = [None, None]

    def run() -> None:
        try:
            outcome[0] = work()
        except BaseException as error:  # handed on
            outcome[1] = error
        done.set()

    threading.Thread(target=run, name="optimd", daemon=True).start()
    while not done.wait(PIECE_MS / 1000):
        pass
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


class Users:
    """Counts who is inside something, and lets whoever ends it wait for them."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._inside = 0
        self.closing = False

    def __enter__(self) -> None:
        with self._lock:
            if self.closing:
                raise errors.FailedPrecondition(f"{self._what} is closed")
            self._inside += 1

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._inside -= 1
            if self.closing:
                self._left.notify_all()

    def close(self) -> bool:
        """Nobody comes in any more. False: it was closed before."""
        with self._lock:
            first, self.closing = not self.closing, True
            return first

    def wait(self) -> None:
        with self._left:
            self._left.wait_for(lambda: self._inside == 0)


class Call(Generic[T]):
    """A call in progress, with the semantics of concurrent.futures.Future: ``done``,
    ``result``, ``exception``, ``cancel``, ``add_done_callback``. It holds the arrays that
    were lent to it until it has ended."""

    def __init__(self, model: Model, handle: int, keep: Any,
                 convert: Callable[[Result], T]) -> None:
        self._model = model
        self._handle: Optional[int] = handle
        self._keep = keep
        self._convert: Optional[Callable[[Result], T]] = convert
        self._lock = threading.RLock()
        self._value: Optional[T] = None
        self._error: Optional[errors.Error] = None
        self._cancelled = False
        self._ended = False
        self._waiting = 0  # threads inside the library
        self._callbacks: List[Callable[[Call[T]], Any]] = []
        model.client._calls[handle] = self

    def _finish(self) -> bool:
        """Take the outcome of a call that has ended. False: it has not."""
        with self._lock:
            if self._ended:
                return True
            handle = self._handle
            if not lib.call_done(handle):
                return False
            raw = _lib.Result()
            status = lib.call_wait(handle, ctypes.addressof(raw))
            text = (lib.call_error(handle) or b"").decode("utf-8", "replace")
            self._ended = True
            self._free()
            self._keep, convert, self._convert = None, self._convert, None
            if status == OK:
                assert convert is not None
                self._value = convert(Result.of(raw, text))
            else:
                self._error = errors.make(status, text, raw.detail, Result.of(raw))
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._run(callback)
        return True

    def _free(self) -> None:
        """With the lock: give the library's call back, if nobody waits in it."""
        handle = self._handle
        if handle is not None and self._waiting == 0:
            self._handle = None
            calls = self._model.client._calls
            if calls.get(handle) is self:
                del calls[handle]
            lib.call_free(handle)

    def _run(self, callback: Callable[[Call[T]], Any]) -> None:
        try:
            callback(self)
        except Exception as error:  # as concurrent.futures does
            warnings.warn(f"a callback of {self!r} failed: {error!r}", RuntimeWarning,
                          stacklevel=2)

    def _wait(self, timeout: Optional[float]) -> None:
        left = None if timeout is None else max(0, round(timeout * 1000))
        while not self._ended:
            piece = PIECE_MS if left is None else min(PIECE_MS, left)
            with self._lock:
                if self._ended:
                    return
                handle = self._handle
                self._waiting += 1
            try:
                ended = lib.call_wait_for(handle, piece) != 0
            finally:
                with self._lock:
                    self._waiting -= 1
                    if self._ended:
                        self._free()
            if ended:
                self._finish()
                return
            if left is not None:
                left -= piece
                if left <= 0:
                    raise concurrent.futures.TimeoutError()

    def done(self) -> bool:
        """Whether it has ended. Never waits."""
        return self._finish()

    def running(self) -> bool:
        return not self._finish()

    def cancelled(self) -> bool:
        return self._finish() and self._cancelled

    def cancel(self) -> bool:
        """End it at once, if it has not ended: the arrays are the caller's again. False:
        it had ended. A push may have been applied all the same; the error's
        ``result.fate`` says what is known."""
        with self._lock:
            if self._finish():
                return False
            self._cancelled = True
            lib.call_cancel(self._handle)
        self._finish()
        return True

    def exception(self, timeout: Optional[float] = None) -> Optional[errors.Error]:
        """What it failed with, or None. Waits for the end, ``timeout`` seconds at most."""
        self._wait(timeout)
        if self._cancelled:
            raise concurrent.futures.CancelledError()
        return self._error

    def result(self, timeout: Optional[float] = None) -> T:
        """What it came to. Waits for the end, ``timeout`` seconds at most; that is not the
        call's own deadline, and it goes on."""
        self._wait(timeout)
        if self._cancelled:
            raise concurrent.futures.CancelledError()
        return self._outcome()

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def _result_or_cancel(self) -> T:
        """For the methods that wait: an interrupted call is not wanted any more."""
        try:
            self._wait(None)
        except BaseException:
            self.cancel()
            raise
        return self._outcome()

    def add_done_callback(self, callback: Callable[[Call[T]], Any]) -> None:
        """Run ``callback(call)`` when it has ended, on a thread of the client's; at once
        if it has ended. It may start calls and must not wait for long."""
        self._model.client._start_telling()
        with self._lock:
            if not self._finish():
                self._callbacks.append(callback)
                return
        self._run(callback)

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is not None:
            # It may still use what was lent to it: the client sees to that.
            self._model.client._orphans.append((handle, self._keep))

    def __repr__(self) -> str:
        state = ("in progress" if not self._ended else
                 "cancelled" if self._cancelled else
                 f"failed: {self._error}" if self._error is not None else "done")
        return f"<optimd.Call of {self._model.name!r}, {state}>"
