"""optimd for asyncio: the same clients and models, whose waits are awaited.

    async with optimd.aio.connect("127.0.0.1:7070", worker="") as ps:
        model = await ps.open("policy")
        weights = await model.pull(min_step=100)

Pushes and pulls are told of by one descriptor that the event loop watches; cancelling a
task cancels its call. What only opens or asks is done on a thread of the loop's.
"""
from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Callable, Generator, List, Mapping, Optional, Sequence, Type, TypeVar

import optimd.client as _client
import optimd.models as _models
from optimd import errors
from optimd._lib import lib
from optimd.calls import Call
from optimd.records import Description, ModelInfo, Policy, Result, Tensor

T = TypeVar("T")


class connect:
    """Connect: to be awaited, or used in ``async with``. As :func:`optimd.connect`."""

    def __init__(self, address: Optional[str] = None, **options: Any) -> None:
        self._address = address
        self._options = options
        self._client: Optional[Client] = None

    async def _open(self) -> Client:
        loop = asyncio.get_running_loop()
        inner = await loop.run_in_executor(
            None, lambda: _client.connect(self._address, **self._options))
        self._client = Client(inner, loop)
        return self._client

    def __await__(self) -> Generator[Any, None, Client]:
        return self._open().__await__()

    async def __aenter__(self) -> Client:
        return await self._open()

    async def __aexit__(self, kind: Optional[Type[BaseException]],
                        error: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        if self._client is not None:
            await self._client.close()


class Client:
    """A client of one event loop."""

    def __init__(self, inner: _client.Client, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop
        fd = lib.ended_fd(inner._handle)
        if fd < 0:
            raise errors.last(errors.ResourceExhausted.code)
        self._fd = fd
        loop.add_reader(fd, inner._finish_ended)

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(None, work)

    async def create(self, name: str, specification: str, tensors: Mapping[str, Any], *,
                     policy: Optional[Policy] = None, sparse: Sequence[str] = ()) -> Model:
        """As :meth:`optimd.Client.create`."""
        return Model(self, await self._run(lambda: self._inner.create(
            name, specification, tensors, policy=policy, sparse=sparse)))

    async def open(self, name: str, join: Optional[bool] = None) -> Model:
        """As :meth:`optimd.Client.open`."""
        return Model(self, await self._run(lambda: self._inner.open(name, join)))

    async def describe(self, name: str) -> Description:
        """As :meth:`optimd.Client.describe`."""
        return await self._run(lambda: self._inner.describe(name))

    async def list(self) -> List[ModelInfo]:
        """As :meth:`optimd.Client.list`."""
        return await self._run(self._inner.list)

    async def close(self) -> None:
        """As :meth:`optimd.Client.close`."""
        if not self._inner.closed:
            self._inner._finish_ended()
            self._loop.remove_reader(self._fd)
            for call in list(self._inner._calls.values()):
                call.cancel()
            await self._run(self._inner.close)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]],
                        error: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._inner).replace("optimd.", "optimd.aio.")


class Model:
    """An open model of one event loop."""

    def __init__(self, client: Client, inner: _models.Model) -> None:
        self.client = client
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def step(self) -> int:
        return self._inner.step

    @property
    def specification(self) -> str:
        return self._inner.specification

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self._inner.tensors

    async def _end(self, call: Call[T]) -> T:
        """Wait for a call, which the descriptor tells of."""
        ended: asyncio.Future[None] = self.client._loop.create_future()

        def tell(_: Any) -> None:  # on the loop's thread, or where the call was cancelled
            self.client._loop.call_soon_threadsafe(
                lambda: None if ended.done() else ended.set_result(None))

        with call._lock:
            if not call._finish():
                call._callbacks.append(tell)
            else:
                ended.set_result(None)
        try:
            await ended
        except BaseException:
            call.cancel()
            raise
        return call._outcome()

    async def pull(self, names: Optional[Sequence[str]] = None,
                   **options: Any) -> _models.Weights:
        """As :meth:`optimd.Model.pull`."""
        return await self._end(self._inner.pull_async(names, **options))

    async def push(self, gradients: Mapping[str, Any], **options: Any) -> Result:
        """As :meth:`optimd.Model.push`."""
        return await self._end(self._inner.push_async(gradients, **options))

    async def push_pull(self, gradients: Mapping[str, Any], *, into: Mapping[str, Any],
                        **options: Any) -> Result:
        """As :meth:`optimd.Model.push_pull`."""
        return await self._end(self._inner.push_pull_async(gradients, into=into, **options))

    async def wait_step(self, step: int, timeout: Optional[float] = None) -> Result:
        """As :meth:`optimd.Model.wait_step`."""
        return await self.client._run(lambda: self._inner.wait_step(step, timeout))

    async def barrier(self, timeout: Optional[float] = None) -> Result:
        """As :meth:`optimd.Model.barrier`."""
        return await self.client._run(lambda: self._inner.barrier(timeout))

    async def describe(self) -> Description:
        """As :meth:`optimd.Model.describe`."""
        return await self.client.describe(self.name)

    async def close(self) -> None:
        """As :meth:`optimd.Model.close`."""
        await self.client._run(self._inner.close)

    async def __aenter__(self) -> Model:
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]],
                        error: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._inner).replace("optimd.", "optimd.aio.")
