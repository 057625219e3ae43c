"""Train through optimd, a parameter server.

    with optimd.connect("127.0.0.1:7070") as ps:
        model = ps.create("lin", "adam(lr=0.05)", {"w": w0, "b": b0})
        w = model.pull()
        result = model.push_pull({"w": gw, "b": gb}, into=w, samples=256)

``optimd.torch`` has a drop-in for torch.optim, ``optimd.aio`` clients for asyncio. Both
are imported by themselves, so that nobody needs what is not used.
"""
from __future__ import annotations

from optimd._lib import lib as _library
from optimd.calls import Call
from optimd.client import Client, connect
from optimd.errors import (Aborted, AlreadyExists, Cancelled, DataLoss, DeadlineExceeded,
                           Error, FailedPrecondition, Internal, InvalidArgument, NotFound,
                           OutOfRange, PermissionDenied, ResourceExhausted,
                           Unauthenticated, Unavailable, Unimplemented, Unknown)
from optimd.models import Local, Model, Plan, Weights
from optimd.records import (Change, Description, Detail, Fate, LocalResult, ModelInfo,
                            Policy, Result, Tensor, Usage, Worker)
from optimd.values import Rows

#: Of the library that is in use.
__version__: str = _library.version_text().decode()

__all__ = [
    "Aborted", "AlreadyExists", "Call", "Cancelled", "Change", "Client", "DataLoss",
    "DeadlineExceeded", "Description", "Detail", "Error", "FailedPrecondition", "Fate",
    "Internal", "InvalidArgument", "Local", "LocalResult", "Model", "ModelInfo",
    "NotFound", "OutOfRange", "PermissionDenied", "Plan", "Policy", "ResourceExhausted",
    "Result", "Rows", "Tensor", "Unauthenticated", "Unavailable", "Unimplemented",
    "Unknown", "Usage", "Weights", "Worker", "connect",
]
