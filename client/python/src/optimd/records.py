"""What calls return and are given: results, policies, descriptions."""
from __future__ import annotations

import ctypes
import enum
import struct
from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from optimd import _lib


class Fate(enum.IntEnum):
    """What became of a push."""
    UNKNOWN = 0
    APPLIED = 1
    DUPLICATE = 2
    DROPPED = 3
    SKIPPED = 4
    NOT_APPLIED = 5
    APPLIED_IN_PART = 6
    NOT_KNOWN = 8


class Detail(int):
    """Why a call failed, as a number; ``name`` is that of optclient.h."""

    @property
    def name(self) -> str:
        return _DETAILS.get(int(self), str(int(self)))

    def __repr__(self) -> str:
        return f"<Detail {self.name}>"


_DETAILS: Dict[int, str] = dict(enumerate(
    "NONE STALE_INCARNATION TAKEN_FOR_DEAD TAKEN_OVER CONTINUED NOT_JOINED LEFT "
    "WORKER_LOST OUT_OF_ORDER TOO_OLD REFUSED_BEFORE MODEL_GONE STOPPING NOT_FINITE "
    "NO_PEER MALFORMED NO_HELLO SECOND_HELLO NO_FEATURE NO_SERVICE OBSERVER NO_MODEL "
    "OTHER_DEFINITION IN_USE TOO_LARGE TOO_MANY NO_MEMORY SILENT TOO_SLOW NO_ROOM "
    "NOT_READY NO_TENSOR NOT_CREATOR PASSED UNFIT NOT_SHARED AT_BARRIER REPLACED "
    "SEND_AGAIN NOT_DURABLE NO_DATA_DIR".split()))

STALE_INCARNATION = 1

_DTYPES = {"fp32": 0, "bf16": 1, "fp16": 2}
_VIEWS = {"train": 0, "eval": 1}
_FORMS = {"mean": 0, "sum": 1}
_MODES = {"sync": 0, "async": 1, "bounded": 2}
_LOSSES = {"shrink": 0, "wait": 1, "fail": 2}
_ATOMICS = {"default": 0, "round": 1, "shard": 2}
_DURABILITIES = {"default": 0, "always": 1, "interval": 2, "checkpoint": 3}
_MOMENTA = {"keep": 0, "reset": 1, "pullback": 2}


def _one_of(what: str, value: str, words: Dict[str, int]) -> int:
    try:
        return words[value]
    except (KeyError, TypeError):
        raise ValueError(f"{what} is {value!r}; it can be {', '.join(words)}") from None


def dtype_number(what: str, value: str) -> int:
    return _one_of(what, value, _DTYPES)


def view_number(value: str) -> int:
    return _one_of("view", value, _VIEWS)


def form_number(value: str) -> int:
    return _one_of("form", value, _FORMS)


def momentum_number(value: str) -> int:
    return _one_of("momentum", value, _MOMENTA)


def milliseconds(what: str, seconds: Optional[float]) -> int:
    """Seconds as the library has them; None is its default, which is 0 there."""
    if seconds is None:
        return 0
    if not 0 < seconds <= 4e6:
        raise ValueError(f"{what} is {seconds!r}; it is in seconds, above 0 and at most "
                         "4,000,000, or None for the client's")
    return max(1, round(seconds * 1000))


class Result(NamedTuple):
    """What came of a call: fate (pushes), step of the model after it, staleness."""
    fate: Fate = Fate.UNKNOWN
    step: int = 0
    staleness: int = 0  #: updates between the weights and the push
    epoch: int = 0
    lost: int = 0
    unchanged: int = 0
    shards_applied: int = 0
    shards: int = 0
    held: int = 0
    durable: bool = False
    reason: str = ""  #: of a push that was DROPPED

    @classmethod
    def of(cls, raw: _lib.Result, reason: str = "") -> Result:
        (fate, step, staleness, epoch, lost, unchanged, shards_applied, shards, _, held,
         durable) = _RESULT(raw)
        return cls(_FATES[fate], step, staleness, epoch, lost, unchanged, shards_applied,
                   shards, held, durable != 0, reason)


# All fields of struct optclient_result at once: this is in the way of each step.
_RESULT = struct.Struct("@i4x7Qi4xQi").unpack_from
_FATES = {int(fate): fate for fate in Fate}


@dataclass(frozen=True)
class LocalResult:
    """What came of a local step: steps and synchronisations so far."""
    steps: int
    epochs: int
    stepped: bool
    synced: bool
    sync: Result

    @classmethod
    def of(cls, raw: _lib.LocalResult) -> LocalResult:
        return cls(raw.steps, raw.epochs, raw.stepped != 0, raw.synced != 0,
                   Result.of(raw.sync))


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model. ``sparse``: its gradients come by rows."""
    name: str
    shape: Tuple[int, ...]
    sparse: bool = False

    @property
    def size(self) -> int:
        elements = 1
        for length in self.shape:
            elements *= length
        return elements

    @classmethod
    def of(cls, raw: _lib.Tensor) -> Tensor:
        return cls(raw.name.decode(), tuple(raw.shape[i] for i in range(raw.rank)),
                   raw.sparse != 0)


@dataclass(frozen=True)
class Policy:
    """When pushes become updates, and how they are kept: as struct optclient_policy."""
    mode: str = "sync"
    loss: str = "shrink"
    min_workers: int = 0
    samples: int = 0
    backup: int = 0
    staleness: int = 0
    damping: bool = False
    delay_compensation: float = 0.0
    atomic: str = "default"
    checkpoint_steps: int = 0
    durability: str = "default"

    def raw(self) -> _lib.Policy:
        return _lib.Policy(
            mode=_one_of("mode", self.mode, _MODES),
            loss=_one_of("loss", self.loss, _LOSSES), min_workers=self.min_workers,
            samples=self.samples, backup=self.backup, staleness=self.staleness,
            damping=int(self.damping), delay_compensation=self.delay_compensation,
            atomic=_one_of("atomic", self.atomic, _ATOMICS),
            checkpoint_steps=self.checkpoint_steps,
            durability=_one_of("durability", self.durability, _DURABILITIES))

    @classmethod
    def of(cls, raw: _lib.Policy) -> Policy:
        def word(words: Dict[str, int], number: int) -> str:
            return next((w for w, n in words.items() if n == number), str(number))
        return cls(word(_MODES, raw.mode), word(_LOSSES, raw.loss), raw.min_workers,
                   raw.samples, raw.backup, raw.staleness, raw.damping != 0,
                   raw.delay_compensation, word(_ATOMICS, raw.atomic),
                   raw.checkpoint_steps, word(_DURABILITIES, raw.durability))


@dataclass(frozen=True)
class Worker:
    """A worker of a model, as the daemon describes it."""
    name: str
    incarnation: int
    last_step: int
    applied: int
    duplicates: int
    refused: int
    reconnects: int
    connected: bool
    pushed: bool
    resting: bool
    away: bool
    dropped: int
    waits: int
    waited: float  #: seconds that the others have waited for it alone

    @classmethod
    def of(cls, raw: _lib.WorkerInfo) -> Worker:
        return cls(raw.name.decode(), raw.incarnation, raw.last_step, raw.applied,
                   raw.duplicates, raw.refused, raw.reconnects, raw.connected != 0,
                   raw.pushed != 0, raw.resting != 0, raw.away != 0, raw.dropped,
                   raw.waits, raw.waited_us * 1e-6)


@dataclass(frozen=True)
class Change:
    """A change of options; ``step`` is the number of the first update with it."""
    step: int
    before: str
    after: str


@dataclass(frozen=True)
class Description:
    """A model in words and numbers."""
    name: str
    specification: str
    policy: Policy
    ready: bool
    step: int
    epoch: int
    parameters: int
    bytes: int
    rounds: int
    rounds_skipped: int
    dropped: int
    mean_staleness: float
    lr: float  #: of the next update
    slots: Tuple[str, ...]
    tensors: Tuple[Tensor, ...]
    tensor_steps: Tuple[int, ...]
    workers: Tuple[Worker, ...]
    changes: Tuple[Change, ...] = field(default=())

    @classmethod
    def of(cls, raw: _lib.Description) -> Description:
        return cls(
            raw.name.decode(), raw.specification.decode(), Policy.of(raw.policy),
            raw.ready != 0, raw.step, raw.epoch, raw.parameters, raw.bytes, raw.rounds,
            raw.rounds_skipped, raw.dropped, raw.mean_staleness, raw.lr,
            tuple(raw.slots[i].decode() for i in range(raw.slot_count)),
            tuple(Tensor.of(raw.tensors[i]) for i in range(raw.tensor_count)),
            tuple(raw.tensor_steps[i] for i in range(raw.tensor_count)),
            tuple(Worker.of(raw.workers[i]) for i in range(raw.worker_count)),
            tuple(Change(c.step, c.before.decode(), c.after.decode())
                  for c in (raw.changes[i] for i in range(raw.change_count))))


@dataclass(frozen=True)
class ModelInfo:
    """A model in a list."""
    name: str
    specification: str
    step: int
    tensors: int
    parameters: int
    workers: int


@dataclass(frozen=True)
class Usage:
    """What a client has done so far."""
    bytes_sent: int
    bytes_received: int
    pushes: int
    pulls: int
    reconnects: int
    resends: int
    bytes_shared: int

    @classmethod
    def of(cls, raw: _lib.Usage) -> Usage:
        return cls(*(getattr(raw, name) for name in _lib.structure_fields(_lib.Usage)))


def tensor_array(tensors: List[Tensor]) -> Any:
    """Tensors for the library; holds all that it points to."""
    array = (_lib.Tensor * len(tensors))()
    for raw, tensor in zip(array, tensors):
        raw.name = tensor.name.encode()
        raw.shape = (ctypes.c_uint64 * max(1, len(tensor.shape)))(*tensor.shape)
        raw.rank = len(tensor.shape)
        raw.sparse = int(tensor.sparse)
    return array
