"""optimd.torch — a drop-in for torch.optim whose state is the daemon's.

    opt = optimd.torch.Optimizer(model.named_parameters(), "127.0.0.1:7070",
                                 "torch.adamw(lr=1e-3) + cosine(20000)", model="mnist")

Everything else of the training loop stays. Any number of such processes train one model.
"""
from __future__ import annotations

import contextlib
import ctypes
import warnings
from operator import attrgetter
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type, Union

import numpy as np
import torch

from optimd import errors
from optimd import groups as _groups
from optimd.client import Client, connect
from optimd.local import OUTER, Local, Outer
from optimd.models import Exchange, Model, Weights
from optimd.named import groups_of
from optimd.records import STALE_INCARNATION, Description, Fate, Policy, Result
from optimd.schedules import schedule
from optimd.values import Table, address_of

__all__ = ["OUTER", "Local", "Optimizer", "Outer", "constant", "schedule"]

_FP32 = torch.float32
_GRADIENT, _LAYOUT, _WANTED = (attrgetter(n) for n in ("grad", "layout", "requires_grad"))
_ADDRESS, _IN_ORDER = torch.Tensor.data_ptr, torch.Tensor.is_contiguous
_CPU = torch.device("cpu")


def _all_plain(gradients: List[Any]) -> bool:
    """Whether all are there, dense, and contiguous: asked without a loop of Python's, as it
    is in the way of each step."""
    try:
        return (set(map(_LAYOUT, gradients)) == {torch.strided}
                and all(map(_IN_ORDER, gradients)))
    except AttributeError:  # of None
        return False


class Optimizer(torch.optim.Optimizer):
    """An optimizer of torch's whose arithmetic and state are the daemon's.

    ``params``: ``module.named_parameters()``, or groups of such with ``weight_decay`` and
    ``lr_scale``. ``server``: an address, or a Client. ``specification``: an expression, such
    as ``"torch.adamw(lr=1e-3) + cosine(20000)"``. ``model``: the model's name; whoever comes
    first creates it from its parameters, everybody then starts from the daemon's.

    ``initial="pull"`` refuses to create. ``sparse`` names embeddings with sparse gradients.
    ``unused="zero"`` pushes zeros for parameters without gradients, so that the mean is over
    all workers, as in DistributedDataParallel. ``on_aborted="continue"``: a push that was
    lost because this worker was taken for dead is a warning. ``lead``: this one worker sends
    rates that it finds changed in ``param_groups``.

    ``result`` is what came of the last step."""

    def __init__(self, params: Any, server: Union[str, Client, None], specification: str, *,
                 model: str, worker: Optional[str] = None, policy: Optional[Policy] = None,
                 initial: str = "create", sparse: Sequence[str] = (), unused: str = "skip",
                 on_aborted: str = "raise", lead: bool = False,
                 timeout: Optional[float] = None, connect_timeout: Optional[float] = None,
                 push_dtype: str = "fp32", pull_dtype: str = "fp32") -> None:
        for what, value, words in (("initial", initial, ("create", "pull")),
                                   ("unused", unused, ("skip", "zero")),
                                   ("on_aborted", on_aborted, ("raise", "continue"))):
            if value not in words:
                raise ValueError(f"{what} is {value!r}; it can be {' or '.join(words)}")
        groups = groups_of(params)
        trained = [([(n, p) for n, p in pairs if p.requires_grad], options)
                   for pairs, options in groups]
        self._frozen = [(n, p) for pairs, _ in groups for n, p in pairs
                        if not p.requires_grad]
        named = [pair for pairs, _ in trained for pair in pairs]
        self.specification = specification + _groups.terms(
            [([n for n, _ in pairs], options) for pairs, options in trained])
        self._names: List[str] = [n for n, _ in named]
        self._parameters: List[torch.Tensor] = [p for _, p in named]
        self._unused, self._on_aborted, self._lead = unused, on_aborted, lead
        self.result = Result()
        #: Steps whose gradient was not used because its round had closed, or was skipped.
        self.dropped = self.skipped = 0

        self._owns = not isinstance(server, Client)
        self.client: Client = server if isinstance(server, Client) else connect(
            server, worker=worker, timeout=timeout, connect_timeout=connect_timeout,
            push_dtype=push_dtype, pull_dtype=pull_dtype)
        try:
            self.model = self._open(model, initial, policy, sparse)
            self._make_tables()
            self.pull()
            self._rate = self.model.describe().lr
            self._ready = False
            super().__init__([{"params": [p for _, p in pairs], **options}
                              for pairs, options in trained], {"lr": self._rate})
            self._ready = True
        except BaseException:
            if self._owns:
                self.client.close()
            raise

    # -- making it

    def _open(self, name: str, initial: str, policy: Optional[Policy],
              sparse: Sequence[str]) -> Model:
        if initial == "create":
            return self.client.create(
                name, self.specification,
                {n: p.detach().to(_CPU, _FP32).contiguous()
                 for n, p in zip(self._names, self._parameters)},
                policy=policy, sparse=sparse)
        model = self.client.open(name)
        theirs = {n: t.shape for n, t in model.tensors.items()}
        mine = {n: tuple(p.shape) for n, p in zip(self._names, self._parameters)}
        if theirs != mine:
            which = next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
            model.close()
            raise errors.InvalidArgument(
                f"model {name!r} is another one: tensor {which!r} is {theirs.get(which)} "
                f"there and {mine.get(which)} here (None: it has none)")
        return model

    def _make_tables(self) -> None:
        layout = self.model._layout
        count = len(self._names)
        numbers = [layout.find(n) for n in self._names]
        self._is_sparse = [layout.tensors[number].sparse for number in numbers]
        self._any_sparse = any(self._is_sparse)
        self._push_table, self._pull_table = Table(count), Table(count)
        self._numbers = np.array(numbers, dtype=np.uint64)
        self._pull_table.words[:, 0] = self._numbers
        self._exchange = Exchange(self.model, self._push_table, self._pull_table)
        self._staged: Dict[int, torch.Tensor] = {}
        self._weights_at: List[int] = []
        self._shapes = [p.shape for p in self._parameters]
        self._plain = False  # the table names all tensors, in order
        self._zeros = (torch.zeros(max(p.numel() for p in self._parameters))
                       if self._unused == "zero" else None)

    def add_param_group(self, param_group: Dict[str, Any]) -> None:
        if getattr(self, "_ready", False):
            raise errors.FailedPrecondition(
                "the tensors of a model are fixed: make another optimizer, of another model, "
                "to train more parameters")
        super().add_param_group(param_group)

    # -- where things are

    def _direct(self, tensor: torch.Tensor) -> bool:
        return (tensor.dtype is _FP32 and tensor.device == _CPU
                and tensor.layout is torch.strided and tensor.is_contiguous())

    def _place_weights(self) -> None:
        """Write to the table where the weights go: the parameters' own memory, or, for those
        of another dtype, device or order in memory, some of ours."""
        at = list(map(_ADDRESS, self._parameters))
        if at == self._weights_at:
            return
        for name, parameter, shape in zip(self._names, self._parameters, self._shapes):
            if parameter.shape != shape:
                raise errors.FailedPrecondition(
                    f"{name!r} has the shape {tuple(parameter.shape)} now, and the model has "
                    f"{tuple(shape)}: make another optimizer, of another model")
        self._weights_at = list(at)
        self._staged = {}
        for i, parameter in enumerate(self._parameters):
            if not self._direct(parameter):
                self._staged[i] = torch.empty(parameter.shape, dtype=_FP32)
                at[i] = self._staged[i].data_ptr()
        self._pull_table.words[:, 1] = at

    def _take_weights(self) -> None:
        """The weights have come."""
        if self._staged:
            with torch.no_grad():
                for i, memory in self._staged.items():
                    self._parameters[i].copy_(memory)
        bump = getattr(torch.autograd.graph, "increment_version", None)
        if bump is not None:  # what backward has kept is not valid any more
            for i, parameter in enumerate(self._parameters):
                if i not in self._staged:
                    bump(parameter)

    def _place_gradients(self) -> None:
        gradients = list(map(_GRADIENT, self._parameters))
        table = self._push_table
        # Where all weights are fp32 on the processor, so are gradients: torch sees to that.
        if (not self._any_sparse and not self._staged
                and _all_plain(gradients)):
            if not self._plain:
                table.words[:, 0] = self._numbers
                table.words[:, 2:] = 0
                self._plain = True
            table.words[:, 1] = list(map(_ADDRESS, gradients))
            table.count = len(gradients)
            table.keep = gradients
            return
        self._plain = False
        table.keep = []
        row = 0
        for i, gradient in enumerate(gradients):
            if gradient is None and self._zeros is None:
                continue
            table.words[row] = self._place_gradient(i, gradient)
            row += 1
        table.count = row
        if row == 0:
            raise errors.FailedPrecondition(
                "no parameter has a gradient: backward() comes before step(). A worker that "
                "has no more batches while others have says so with rest()")

    def _place_gradient(self, i: int, gradient: Optional[torch.Tensor]
                        ) -> Tuple[int, int, int, int]:
        number = int(self._numbers[i])
        if self._is_sparse[i]:
            return self._place_rows(i, gradient)
        if gradient is None:
            assert self._zeros is not None
            return number, self._zeros.data_ptr(), 0, 0
        if gradient.layout is not torch.strided:
            raise TypeError(f"the gradient of {self._names[i]!r} is sparse; say "
                            f"sparse=[{self._names[i]!r}] when the optimizer is made")
        gradient = gradient.detach().to(_CPU, _FP32).contiguous()
        self._push_table.keep.append(gradient)
        return number, gradient.data_ptr(), 0, 0

    def _place_rows(self, i: int, gradient: Optional[torch.Tensor]
                    ) -> Tuple[int, int, int, int]:
        number = int(self._numbers[i])
        if gradient is None:
            return number, 0, 0, 0
        if gradient.layout is torch.strided:
            raise TypeError(f"the gradient of {self._names[i]!r} is dense, and the model has a "
                            "sparse tensor of that name: use Embedding(sparse=True)")
        gradient = gradient.detach().coalesce().to(_CPU)
        rows = gradient.indices()[0].numpy().astype(np.uint32)
        values = gradient.values().to(_FP32).contiguous()
        self._push_table.keep += [rows, values]
        if rows.size == 0:
            return number, 0, 0, 0
        return number, values.data_ptr(), address_of(rows), rows.size

    # -- the step

    def _see_changes(self) -> None:
        """What of the parameters and groups may not change, or has to be sent."""
        if not all(map(_WANTED, self._parameters)):
            name = next(n for n, p in zip(self._names, self._parameters)
                        if not p.requires_grad)
            raise errors.FailedPrecondition(
                f"{name!r} does not require a gradient any more; the tensors of a model "
                "are fixed: make another optimizer, of another model")
        for name, parameter in self._frozen:
            if parameter.requires_grad:
                raise errors.FailedPrecondition(
                    f"{name!r} was frozen when the optimizer was made, and is not any more; "
                    "make another optimizer, of another model")
        changed = [g["lr"] for g in self.param_groups if g["lr"] != self._rate]
        if not changed:
            return
        if not self._lead:
            raise errors.FailedPrecondition(
                f"the learning rate of a group was set to {changed[0]}; the daemon's is "
                f"{self._rate}, and counts: use a schedule in the specification "
                "(optimd.torch.schedule), model.set(\"lr=...\"), or, at one worker, lead=True")
        if len(changed) != len(self.param_groups) or len(set(changed)) != 1:
            raise errors.FailedPrecondition(
                f"groups have the learning rates {sorted(set(changed))}; there is one, and "
                "lr_scale of a group")
        rate = float(changed[0])
        self.model.set(f"lr={rate!r}")
        self._rate = changed[0]

    def step(self, closure: Optional[Callable[[], Any]] = None,
             *, samples: int = 1, timeout: Optional[float] = None) -> Any:
        """Push the gradients, wait for the round, and take the new weights.

        ``samples``: how many the gradients are the mean over, all of those that were
        accumulated. Returns what ``closure`` does; ``result`` has the rest. After a step that
        has failed the parameters may be of no step: go on with ``pull``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._see_changes()
        self._place_weights()
        self._place_gradients()
        try:
            self.result = self._exchange.run(samples, timeout)
        except errors.Aborted as error:
            if error.detail != STALE_INCARNATION:
                raise
            self.pull()
            if self._on_aborted == "raise":
                raise
            warnings.warn(f"this step was not used: {error}", RuntimeWarning, stacklevel=2)
            assert error.result is not None
            self.result = error.result
            return loss
        finally:
            self._push_table.keep = []
        self._take_weights()
        if self.result.fate == Fate.DROPPED:
            if self.dropped == 0:
                warnings.warn(f"this step's gradient was not used: {self.result.reason} (told "
                              "once; see dropped)", RuntimeWarning, stacklevel=2)
            self.dropped += 1
        elif self.result.fate == Fate.SKIPPED:
            self.skipped += 1
        return loss

    @property
    def lr(self) -> float:
        """The rate of the next update, as the daemon has it; asks for it, and brings the
        groups' up to date."""
        self._rate = self.model.describe().lr
        for group in self.param_groups:
            group["lr"] = self._rate
        return self._rate

    # -- weights and state

    def pull(self, view: str = "train", *, min_step: int = 0,
             timeout: Optional[float] = None) -> Result:
        """Take the model's weights: of the view ``train``, or ``eval``."""
        self._place_weights()
        options = self.model._pull_options(view, min_step, 0, timeout, None)
        self.result = self.model._start(
            "pull_start", (self._pull_table.address, self._pull_table.count,
                           ctypes.addressof(options)),
            (self._pull_table, self._parameters, options),
            self.model._note)._result_or_cancel()
        self._take_weights()
        return self.result

    @contextlib.contextmanager
    def eval_weights(self) -> Iterator[None]:
        """The weights for evaluation (Lookahead's slow ones, Nesterov's own) while in here;
        afterwards those that were there before."""
        kept = [p.detach().clone() for p in self._parameters]
        before = self.result
        try:
            self.pull("eval")
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._parameters, kept):
                    parameter.copy_(value)
            self.result = before

    def rest(self) -> None:
        """No more batches for now: rounds do not wait for this worker until it steps."""
        self.model.rest()

    def barrier(self, timeout: Optional[float] = None) -> None:
        """Wait until every worker of the model is here."""
        self.model.barrier(timeout)

    def save(self, path: Any, *, view: str = "train", slots: bool = True) -> Result:
        """Write the model's weights, and with ``slots`` the state, to a .safetensors file."""
        return self.client.export(self.model.name, path, view=view, slots=slots)

    def _slots(self) -> Tuple[Description, Dict[str, Weights]]:
        """All slots, of one step."""
        for _ in range(100):
            description = self.model.describe()
            slots = {s: self.model.pull(self._names, slot=s) for s in description.slots}
            after = self.model.describe()
            if (after.step == description.step
                    and all(w.step == description.step for w in slots.values())):
                return description, slots
        raise errors.FailedPrecondition("the model is updated all the time; let the workers "
                                        "meet at barrier() before its state is taken")

    def state_dict(self) -> Dict[str, Any]:
        """The state as torch has it: slots by torch's names, for each parameter."""
        description, slots = self._slots()
        number = {t.name: i for i, t in enumerate(description.tensors)}
        state: Dict[int, Dict[str, Any]] = {}
        for i, name in enumerate(self._names):
            steps = description.tensor_steps[number[name]]
            if steps > 0:
                state[i] = {slot: torch.from_numpy(weights[name])
                            for slot, weights in slots.items()}
                state[i]["step"] = torch.tensor(float(steps))
        at = 0
        packed = []
        for group in self.param_groups:
            count = len(group["params"])
            packed.append({**{k: v for k, v in group.items() if k != "params"},
                           "params": list(range(at, at + count))})
            at += count
        return {"state": state, "param_groups": packed,
                "optimd": {"specification": description.specification,
                           "step": description.step, "epoch": description.epoch,
                           "names": list(self._names)}}

    def copy_state_to(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimizer of torch's, of the same parameters in the same groups, the state
        that the daemon has: it goes on from there. Its own options stay."""
        theirs = optimizer.state_dict()["param_groups"]
        state = self.state_dict()
        optimizer.load_state_dict({"state": state["state"], "param_groups": theirs})

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """The state is the daemon's, and stays there while workers come and go: what is
        loaded has to be what it has already. Then the weights are taken from there."""
        said = state_dict.get("optimd")
        here = self.model.describe()
        if said is None:
            raise errors.Unimplemented(
                "this state is not of optimd, and a model cannot be given state from outside: "
                "it begins at step 0 with the parameters' values")
        if (said["step"], said["names"]) != (here.step, self._names):
            raise errors.FailedPrecondition(
                f"this state is of step {said['step']}, and model {self.model.name!r} is at step "
                f"{here.step}: the daemon keeps state by itself (--data-dir), and goes on from "
                "what it has")
        self.pull()

    # -- the rest

    def close(self) -> None:
        """Leave the rounds; and say goodbye, if the connection is this optimizer's own."""
        self.model.close()
        if self._owns:
            self.client.close()

    def __enter__(self) -> Optimizer:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def __getstate__(self) -> Any:
        raise TypeError("an optimizer is of one process; make one in each (its state is the "
                        "daemon's, and state_dict() copies that)")

    def __repr__(self) -> str:
        text = super().__repr__()
        return (f"{text[:-1].rstrip()}\n    model: {self.model.name!r} at "
                f"{self.client.address}, step {self.model.step}\n    specification: "
                f"{self.model.specification}\n)")


def constant(optimizer: Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """A scheduler that changes nothing, for what insists on one."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
