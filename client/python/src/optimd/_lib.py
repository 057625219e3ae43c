"""liboptclient by ctypes: the structures and functions of optclient.h, and nothing else.

A test compares every size and place here with the header by the C compiler. ctypes gives
the GIL back during each call.
"""
from __future__ import annotations

import ctypes
import os
from ctypes import (POINTER, Structure, c_char_p, c_double, c_int, c_size_t,
                    c_uint32, c_uint64, c_void_p)
from pathlib import Path
from typing import Any, List, Tuple, Type

#: What this package needs: as OPTCLIENT_VERSION.
NEEDED_MAJOR = 0


class Options(Structure):
    _fields_ = [("worker", c_char_p), ("timeout_ms", c_uint32),
                ("connect_timeout_ms", c_uint32), ("backoff_min_ms", c_uint32),
                ("backoff_max_ms", c_uint32), ("push_dtype", c_int),
                ("pull_dtype", c_int), ("checksum", c_int), ("no_shared_memory", c_int),
                ("spin_us", c_uint32), ("ca", c_char_p), ("cert", c_char_p),
                ("key", c_char_p), ("token_file", c_char_p), ("reserved", c_uint64 * 12)]


class Tensor(Structure):
    _fields_ = [("name", c_char_p), ("shape", POINTER(c_uint64)), ("rank", c_size_t),
                ("sparse", c_int), ("reserved", c_uint64 * 2)]


class Policy(Structure):
    _fields_ = [("mode", c_int), ("loss", c_int), ("min_workers", c_uint32),
                ("samples", c_uint64), ("backup", c_uint32), ("staleness", c_uint32),
                ("damping", c_int), ("delay_compensation", c_double), ("atomic", c_int),
                ("checkpoint_steps", c_uint64), ("durability", c_int),
                ("reserved", c_uint64 * 2)]


class Values(Structure):
    _fields_ = [("tensor", c_size_t), ("values", c_void_p), ("rows", c_void_p),
                ("row_count", c_size_t)]


class Result(Structure):
    _fields_ = [("fate", c_int), ("step", c_uint64), ("staleness", c_uint64),
                ("epoch", c_uint64), ("lost", c_uint64), ("unchanged", c_uint64),
                ("shards_applied", c_uint64), ("shards", c_uint64), ("detail", c_int),
                ("held", c_uint64), ("durable", c_int), ("reserved", c_uint64 * 1)]


class PushOptions(Structure):
    _fields_ = [("samples", c_uint64), ("form", c_int), ("basis", c_uint64),
                ("timeout_ms", c_uint32), ("reserved", c_uint64 * 4)]


class PullOptions(Structure):
    _fields_ = [("view", c_int), ("slot", c_char_p), ("min_step", c_uint64),
                ("timeout_ms", c_uint32), ("since", c_uint64),
                ("reserved", c_uint64 * 4)]


class LocalOptions(Structure):
    _fields_ = [("momentum", c_int), ("alpha", c_double), ("steps", c_uint64),
                ("timeout_ms", c_uint32), ("reserved", c_uint64 * 4)]


class LocalResult(Structure):
    _fields_ = [("steps", c_uint64), ("epochs", c_uint64), ("stepped", c_int),
                ("synced", c_int), ("sync", Result), ("reserved", c_uint64 * 2)]


class WorkerInfo(Structure):
    _fields_ = [("name", c_char_p), ("incarnation", c_uint64),
                ("last_sequence", c_uint64), ("last_step", c_uint64),
                ("applied", c_uint64), ("duplicates", c_uint64), ("refused", c_uint64),
                ("resends", c_uint64), ("reconnects", c_uint64), ("connected", c_int),
                ("pushed", c_int), ("resting", c_int), ("away", c_int),
                ("dropped", c_uint64), ("waits", c_uint64), ("waited_us", c_uint64),
                ("staleness", c_uint64 * 15), ("reserved", c_uint64 * 8)]


class Change(Structure):
    _fields_ = [("step", c_uint64), ("before", c_char_p), ("after", c_char_p),
                ("reserved", c_uint64 * 2)]


class Description(Structure):
    _fields_ = [("name", c_char_p), ("specification", c_char_p), ("policy", Policy),
                ("ready", c_int), ("step", c_uint64), ("epoch", c_uint64),
                ("parameters", c_uint64), ("bytes", c_uint64),
                ("rounds_skipped", c_uint64), ("rounds", c_uint64),
                ("dropped", c_uint64), ("mean_staleness", c_double), ("lr", c_double),
                ("slot_count", c_size_t), ("tensor_count", c_size_t),
                ("worker_count", c_size_t), ("slots", POINTER(c_char_p)),
                ("tensors", POINTER(Tensor)), ("tensor_steps", POINTER(c_uint64)),
                ("workers", POINTER(WorkerInfo)), ("change_count", c_size_t),
                ("changes", POINTER(Change)), ("reserved", c_uint64 * 8)]


class ModelInfo(Structure):
    _fields_ = [("name", c_char_p), ("specification", c_char_p), ("step", c_uint64),
                ("tensors", c_uint64), ("parameters", c_uint64), ("workers", c_uint32),
                ("durability", c_uint64), ("reserved", c_uint64 * 3)]


class Counter(Structure):
    _fields_ = [("name", c_char_p), ("value", c_uint64), ("reserved", c_uint64 * 2)]


class ExportOptions(Structure):
    _fields_ = [("view", c_int), ("dtype", c_int), ("slots", c_int),
                ("timeout_ms", c_uint32), ("reserved", c_uint64 * 4)]


class ImportOptions(Structure):
    _fields_ = [("sparse", POINTER(c_char_p)), ("sparse_count", c_size_t),
                ("reserved", c_uint64 * 4)]


class Usage(Structure):
    _fields_ = [("bytes_sent", c_uint64), ("bytes_received", c_uint64),
                ("pushes", c_uint64), ("pulls", c_uint64), ("reconnects", c_uint64),
                ("resends", c_uint64), ("bytes_shared", c_uint64),
                ("reserved", c_uint64 * 8)]


#: By the names of the header, without optclient_; a test walks over these.
STRUCTURES = {
    "options": Options, "tensor": Tensor, "policy": Policy, "values": Values,
    "result": Result, "push_options": PushOptions, "pull_options": PullOptions,
    "local_options": LocalOptions, "local_result": LocalResult,
    "worker_info": WorkerInfo, "change": Change, "description": Description,
    "model_info": ModelInfo, "counter": Counter, "export_options": ExportOptions,
    "import_options": ImportOptions, "usage": Usage,
}

# Arrays of values are NumPy's, of four 64-bit words a row.
assert ctypes.sizeof(Values) == 32 and Values.row_count.offset == 24


_OUT = POINTER(c_void_p)
_FUNCTIONS: List[Tuple[str, Any, List[Any]]] = [
    ("version", c_uint32, []),
    ("version_text", c_char_p, []),
    ("error", c_char_p, []),
    ("detail", c_int, []),
    ("connect", c_int, [c_char_p, POINTER(Options), _OUT]),
    ("close", None, [c_void_p]),
    ("leave", None, [c_void_p]),
    ("create", c_int, [c_void_p, c_char_p, c_char_p, POINTER(Policy), POINTER(Tensor),
                       c_size_t, POINTER(c_void_p), _OUT]),
    ("open", c_int, [c_void_p, c_char_p, c_int, _OUT]),
    ("model_close", None, [c_void_p]),
    ("model_leave", None, [c_void_p]),
    ("model_tensors", c_size_t, [c_void_p]),
    ("model_tensor", POINTER(Tensor), [c_void_p, c_size_t]),
    ("model_specification", c_char_p, [c_void_p]),
    ("gradient", c_void_p, [c_void_p, c_size_t]),
    ("weights", c_void_p, [c_void_p, c_size_t]),
    ("wait_step", c_int, [c_void_p, c_uint64, c_uint32, c_void_p]),
    ("wait_epoch", c_int, [c_void_p, c_uint64, c_uint32, c_void_p]),
    ("wait_durable", c_int, [c_void_p, c_uint64, c_uint32, c_void_p]),
    ("barrier", c_int, [c_void_p, c_uint32, c_void_p]),
    ("rest", c_int, [c_void_p]),
    ("lost", c_int, [c_void_p, c_char_p, c_size_t]),
    ("push_start", c_int, [c_void_p, c_void_p, c_size_t, c_void_p, c_void_p, c_void_p,
                           c_void_p]),
    ("pull_start", c_int, [c_void_p, c_void_p, c_size_t, c_void_p, c_void_p, c_void_p,
                           c_void_p]),
    ("push_pull_start", c_int, [c_void_p, c_void_p, c_size_t, c_void_p, c_void_p,
                                c_size_t, c_void_p, c_void_p, c_void_p, c_void_p]),
    ("call_done", c_int, [c_void_p]),
    ("call_wait", c_int, [c_void_p, c_void_p]),
    ("call_wait_for", c_int, [c_void_p, c_uint32]),
    ("call_cancel", None, [c_void_p]),
    ("call_error", c_char_p, [c_void_p]),
    ("call_free", None, [c_void_p]),
    ("ended_fd", c_int, [c_void_p]),
    ("ended", c_void_p, [c_void_p]),
    ("local_open", c_int, [c_void_p, c_char_p, c_uint64, POINTER(LocalOptions), _OUT]),
    ("local_close", None, [c_void_p]),
    ("local_view", c_void_p, [c_void_p, c_size_t]),
    ("local_step", c_int, [c_void_p, c_void_p, c_size_t, c_uint64,
                           POINTER(LocalResult)]),
    ("local_sync", c_int, [c_void_p, POINTER(LocalResult)]),
    ("local_owes", c_int, [c_void_p]),
    ("local_restart", c_int, [c_void_p, POINTER(LocalResult)]),
    ("describe", c_int, [c_void_p, c_char_p, POINTER(POINTER(Description))]),
    ("description_free", None, [POINTER(Description)]),
    ("list", c_int, [c_void_p, POINTER(POINTER(ModelInfo)), POINTER(c_size_t)]),
    ("list_free", None, [POINTER(ModelInfo)]),
    ("statistics", c_int, [c_void_p, POINTER(POINTER(Counter)), POINTER(c_size_t)]),
    ("statistics_free", None, [POINTER(Counter)]),
    ("set", c_int, [c_void_p, c_char_p, c_char_p, c_uint64, POINTER(c_uint64)]),
    ("export", c_int, [c_void_p, c_char_p, c_char_p, POINTER(ExportOptions),
                       POINTER(Result)]),
    ("import", c_int, [c_void_p, c_char_p, c_char_p, POINTER(Policy), c_char_p,
                       POINTER(ImportOptions), _OUT]),
    ("delete", c_int, [c_void_p, c_char_p]),
    ("usage", None, [c_void_p, POINTER(Usage)]),
]


def _candidates() -> List[str]:
    named = os.environ.get("OPTIMD_LIBRARY")
    if named:
        return [named]
    beside = Path(__file__).resolve().with_name("liboptclient.so.0")
    return ([str(beside)] if beside.exists() else []) + ["liboptclient.so.0"]


class Library:
    """The functions, by their names without optclient_."""

    def __init__(self, path: str) -> None:
        self.path = path
        loaded = ctypes.CDLL(path)
        try:
            version = loaded.optclient_version
            version.restype = c_uint32
            number = int(version())
        except AttributeError:
            raise ImportError(f"{path} is no liboptclient, or one before 0.1") from None
        if number // 1000000 != NEEDED_MAJOR:
            raise ImportError(f"{path} is liboptclient {number // 1000000}; this package "
                              f"needs {NEEDED_MAJOR}")
        for name, result, arguments in _FUNCTIONS:
            try:
                function = getattr(loaded, "optclient_" + name)
            except AttributeError:
                raise ImportError(f"{path} has no optclient_{name}: it is older than this "
                                  "package; install the liboptclient that goes with it"
                                  ) from None
            function.restype = result
            function.argtypes = arguments
            setattr(self, name + "_" if name == "import" else name, function)

    def __getattr__(self, name: str) -> Any:  # for type checkers: all are set above
        raise AttributeError(name)


def _load() -> Library:
    trouble: List[str] = []
    for path in _candidates():
        try:
            return Library(path)
        except OSError as error:
            trouble.append(str(error))
    raise ImportError("liboptclient was not found (" + "; ".join(trouble) + "); install it, "
                      "or name it in the environment variable OPTIMD_LIBRARY")


def structure_fields(structure: Type[Structure]) -> List[str]:
    """Names of the fields of a structure, without what is reserved."""
    return [field[0] for field in structure._fields_ if field[0] != "reserved"]


lib = _load()
