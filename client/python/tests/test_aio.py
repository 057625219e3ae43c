"""optimd.aio: the event loop goes on meanwhile, and cancelling a task cancels its call."""
from __future__ import annotations

import asyncio

import numpy as np
import pytest

import optimd
import optimd.aio


def test_the_loop_goes_on(server):
    async def main():
        options = {"shared_memory": server.way == "shared", "timeout": 10}
        async with optimd.aio.connect(server.address, worker="w0", **options) as ps, \
                optimd.aio.connect(server.address, worker="", **options) as watcher:
            m = await ps.create("m", "sgd(lr=1)", {"w": np.zeros(3)})
            seen = await watcher.open("m")
            waits = asyncio.ensure_future(seen.pull(min_step=5))
            many = [asyncio.ensure_future(seen.pull()) for _ in range(20)]
            into = await m.pull()
            for _ in range(4):
                assert not waits.done()
                await m.push_pull({"w": np.ones(3)}, into=into)
            assert (await m.push({"w": np.ones(3)})).step == 5
            np.testing.assert_array_equal((await waits)["w"], np.full(3, -5))
            assert len(await asyncio.gather(*many)) == 20
            assert (await seen.wait_step(5)).step == 5
            assert (await m.barrier()).step >= 0
            assert (await seen.describe()).step == 5 and [i.name for i in await ps.list()] == ["m"]
            assert "aio.Model 'm'" in repr(m) and "aio.Client" in repr(ps)
            assert seen.step == 5 and seen.name == "m" and "w" in seen.tensors
            await m.close()
            with pytest.raises(optimd.FailedPrecondition, match="closed"):
                await m.pull()

    asyncio.run(main())


def test_tasks_are_cancelled(server):
    async def main():
        async with optimd.aio.connect(server.address, worker="w0", timeout=10) as ps:
            m = await ps.create("m", "sgd(lr=1)", {"w": np.zeros(3)})
            into = {"w": np.full(3, 42, np.float32)}
            task = asyncio.ensure_future(m.pull(into=into, min_step=1))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(m.pull(min_step=1), 0.05)
            await m.push({"w": np.ones(3)})
            assert into["w"].sum() == 126  # nobody writes there any more
            with pytest.raises(ValueError):
                await m.push({"w": np.full(3, np.nan)})
            with pytest.raises(TimeoutError):
                await m.pull(min_step=9, timeout=0.05)
            left = asyncio.ensure_future(m.pull(min_step=9))
            await asyncio.sleep(0)
        with pytest.raises(optimd.Cancelled):
            await left

    asyncio.run(main())


def test_connecting_fails_as_it_does_without(daemon):
    async def main():
        with pytest.raises(ValueError):
            await optimd.aio.connect("nonsense")
        ps = await optimd.aio.connect(daemon.tcp, worker="")
        with pytest.raises(LookupError):
            await ps.open("none")
        await ps.close()
        await ps.close()

    asyncio.run(main())
