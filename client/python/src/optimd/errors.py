"""Errors: one class for each code of the library, which is also the built-in exception
that Python people catch. The sentence is the library's, unchanged."""
from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Optional, Type

from optimd._lib import lib

if TYPE_CHECKING:
    from optimd.records import Detail, Result


class Error(Exception):
    """What a call failed with. ``status`` is the code's name, ``detail`` why, where a
    program may want to act on it, and ``result`` what is true of a push that failed
    (``result.fate``), or None."""

    code = 2
    status = "UNKNOWN"

    def __init__(self, sentence: str, detail: Optional[Detail] = None,
                 result: Optional[Result] = None) -> None:
        super().__init__(sentence)
        self.detail = detail
        self.result = result


class Cancelled(Error):
    code, status = 1, "CANCELLED"


class Unknown(Error):
    code, status = 2, "UNKNOWN"


class InvalidArgument(Error, ValueError):
    code, status = 3, "INVALID_ARGUMENT"


class DeadlineExceeded(Error, TimeoutError):
    code, status = 4, "DEADLINE_EXCEEDED"


class NotFound(Error, LookupError):
    code, status = 5, "NOT_FOUND"


class AlreadyExists(Error):
    code, status = 6, "ALREADY_EXISTS"


class PermissionDenied(Error, PermissionError):
    code, status = 7, "PERMISSION_DENIED"


class ResourceExhausted(Error, MemoryError):
    code, status = 8, "RESOURCE_EXHAUSTED"


class FailedPrecondition(Error):
    code, status = 9, "FAILED_PRECONDITION"


class Aborted(Error):
    code, status = 10, "ABORTED"


class OutOfRange(Error):
    code, status = 11, "OUT_OF_RANGE"


class Unimplemented(Error, NotImplementedError):
    code, status = 12, "UNIMPLEMENTED"


class Internal(Error):
    code, status = 13, "INTERNAL"


class Unavailable(Error, ConnectionError):
    code, status = 14, "UNAVAILABLE"


class DataLoss(Error):
    code, status = 15, "DATA_LOSS"


class Unauthenticated(Error, PermissionError):
    code, status = 16, "UNAUTHENTICATED"


CLASSES: Dict[int, Type[Error]] = {
    kind.code: kind for kind in (
        Cancelled, Unknown, InvalidArgument, DeadlineExceeded, NotFound, AlreadyExists,
        PermissionDenied, ResourceExhausted, FailedPrecondition, Aborted, OutOfRange,
        Unimplemented, Internal, Unavailable, DataLoss, Unauthenticated)
}


def make(status: int, sentence: str, detail: int = 0,
         result: Optional[Result] = None) -> Error:
    """The exception for a status."""
    from optimd.records import Detail
    return CLASSES.get(status, Unknown)(sentence, Detail(detail), result)


def last(status: int) -> Error:
    """The exception for the status that the calling thread's last call has returned: to
    be asked for before anything else is."""
    sentence = lib.error()
    detail = lib.detail()
    return make(status, sentence.decode("utf-8", "replace"), detail)
