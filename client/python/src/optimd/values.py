"""Arrays to places: what the user gives is checked, and its addresses are put into a
table that is the library's array of struct optclient_values.

An array is a NumPy array, a torch tensor on the processor, or anything with the buffer
protocol or DLPack. Gradients of other real dtypes, or in another order in memory, are
copied; memory that weights are written to has to be right.
"""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from optimd.errors import InvalidArgument
from optimd.records import Tensor

#: A row of the table: tensor, address, address of row numbers, how many.
_WORDS = 4


class Rows(NamedTuple):
    """The gradient of some rows of a sparse tensor: their numbers, and for each its
    values. A row may be named more than once."""
    rows: Any
    values: Any


class Table:
    """An array of struct optclient_values, and what keeps its memory alive."""

    __slots__ = ("words", "address", "count", "keep")

    def __init__(self, count: int) -> None:
        self.words = np.zeros((count, _WORDS), dtype=np.uint64)
        self.address = int(self.words.__array_interface__["data"][0])
        self.count = count
        self.keep: List[Any] = []


def address_of(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _as_numpy(value: Any, what: str) -> np.ndarray[Any, Any]:
    """An array of the same memory, if that can be had."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach()
        if value.device.type != "cpu":
            raise TypeError(f"{what} is on {value.device}; bring it to the processor, or "
                            "use optimd.torch.Optimizer, which does")
        if value.layout != _strided(value):
            raise TypeError(f"{what} is of layout {value.layout}; give its rows as "
                            "optimd.Rows(rows, values)")
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
        result: np.ndarray[Any, Any] = value.numpy()
        return result
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (RuntimeError, TypeError, BufferError, ValueError):
            pass
    return np.asarray(value)


def _strided(tensor: Any) -> Any:
    import torch  # it is there: the tensor is one
    return torch.strided


def _check_shape(array: np.ndarray[Any, Any], shape: Tuple[int, ...], what: str) -> None:
    if array.shape != shape:
        raise InvalidArgument(f"{what} has the shape {array.shape}; the model has {shape}")


def to_read(value: Any, shape: Tuple[int, ...], what: str) -> np.ndarray[Any, Any]:
    """An array that the library can read: fp32, in C order; a copy if need be."""
    array = _as_numpy(value, what)
    _check_shape(array, shape, what)
    if array.dtype != np.float32:
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{what} is of dtype {array.dtype}; it has to be of real numbers")
    with np.errstate(over="ignore"):  # what becomes infinite is refused by its name
        return np.ascontiguousarray(array, dtype=np.float32).reshape(shape)


def to_write(value: Any, shape: Tuple[int, ...], what: str) -> np.ndarray[Any, Any]:
    """An array that the library can write."""
    array = _as_numpy(value, what)
    _check_shape(array, shape, what)
    if (array.dtype != np.float32 or not array.dtype.isnative
            or not array.flags.c_contiguous or not array.flags.writeable
            or not (array is value or np.shares_memory(array, _as_numpy(value, what)))):
        raise TypeError(
            f"{what} (dtype {array.dtype}, strides {array.strides}"
            f"{'' if array.flags.writeable else ', read-only'}) cannot be written: it has to "
            "be fp32, contiguous in C order, and writable")
    return array


class Layout:
    """The tensors of a model, and tables for them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors: Tuple[Tensor, ...] = tuple(tensors)
        self.number: Dict[str, int] = {t.name: i for i, t in enumerate(self.tensors)}

    def find(self, name: str) -> int:
        try:
            return self.number[name]
        except (KeyError, TypeError):
            import difflib
            near = difflib.get_close_matches(str(name), self.number, 1)
            raise InvalidArgument(
                f"the model has no tensor {name!r}"
                + (f"; is it {near[0]!r}?" if near else
                   f"; it has {', '.join(map(repr, list(self.number)[:5]))}"
                   + (", ..." if len(self.number) > 5 else ""))) from None

    def gradients(self, values: Mapping[str, Any]) -> Table:
        """The table of a push; copies what cannot be read as it is."""
        table = Table(len(values))
        for row, (name, value) in enumerate(values.items()):
            number = self.find(name)
            tensor = self.tensors[number]
            if tensor.sparse:
                self._put_rows(table, row, number, tensor, value)
                continue
            if isinstance(value, Rows):
                raise InvalidArgument(f"{name!r} is not sparse: its gradient is an array")
            array = to_read(value, tensor.shape, f"gradient {name!r}")
            table.keep.append(array)
            table.words[row] = (number, address_of(array), 0, 0)
        return table

    @staticmethod
    def _put_rows(table: Table, row: int, number: int, tensor: Tensor, value: Any) -> None:
        if not isinstance(value, tuple) or len(value) != 2:
            raise InvalidArgument(f"{tensor.name!r} is sparse: its gradient is "
                                  "optimd.Rows(rows, values)")
        rows = np.asarray(value[0])
        if rows.ndim != 1 or (rows.size > 0 and rows.dtype.kind not in "iu"):
            raise InvalidArgument(f"rows of {tensor.name!r} have to be a list of numbers")
        if rows.size > 0 and not 0 <= int(rows.min()) <= int(rows.max()) < tensor.shape[0]:
            raise InvalidArgument(f"rows of {tensor.name!r} are {rows.min()} to {rows.max()}; "
                                  f"it has 0 to {tensor.shape[0] - 1}")
        numbers = np.ascontiguousarray(rows, dtype=np.uint32)
        array = to_read(value[1], (numbers.size, *tensor.shape[1:]),
                        f"gradient {tensor.name!r}")
        table.keep += [numbers, array]
        if numbers.size > 0:
            table.words[row] = (number, address_of(array), address_of(numbers), numbers.size)
        else:
            table.words[row] = (number, 0, 0, 0)

    def weights(self, into: Mapping[str, Any]) -> Table:
        """The table of a pull."""
        table = Table(len(into))
        for row, (name, value) in enumerate(into.items()):
            number = self.find(name)
            array = to_write(value, self.tensors[number].shape, f"weight {name!r}")
            table.keep.append(array)
            table.words[row] = (number, address_of(array), 0, 0)
        return table

    def new_weights(self, names: Sequence[str]) -> Dict[str, np.ndarray[Any, Any]]:
        """Memory for weights."""
        return {name: np.empty(self.tensors[self.find(name)].shape, dtype=np.float32)
                for name in names}
