"""What the package costs over the C calls that it makes: each pair by turns in one process,
against a daemon of its own. `make bench-python`.

Printed are the 10th percentile and the median of both, and their ratio: 1.00 is what C
takes."""
from __future__ import annotations

import asyncio
import ctypes
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conftest import Daemon  # sets where the library is found

import numpy as np
import torch

import optimd
import optimd.aio
import optimd.torch
from optimd import _lib

C_LOOP = """
#include <time.h>
#include "optclient.h"
typedef enum optclient_status call(struct optclient_model *, const struct optclient_values *,
    size_t, const struct optclient_push_options *, const struct optclient_values *, size_t,
    const struct optclient_pull_options *, struct optclient_result *);
double once(call *push_pull, struct optclient_model *model, struct optclient_values *gradients,
            struct optclient_values *weights, size_t count)
{
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    enum optclient_status status = push_pull(model, gradients, count, NULL, weights, count,
                                             NULL, NULL);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return status != 0 ? -1 : to.tv_sec - from.tv_sec + 1e-9 * (to.tv_nsec - from.tv_nsec);
}
"""


class C:
    """The blocking call of C, timed in C."""

    def __init__(self, folder):
        source, library = Path(folder) / "loop.c", Path(folder) / "loop.so"
        source.write_text(C_LOOP)
        header = Path(__file__).resolve().parents[2]
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-I", str(header), str(source), "-o",
                        str(library)], check=True)
        self._once = ctypes.CDLL(str(library)).once
        self._once.restype = ctypes.c_double
        self._once.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_size_t]
        self._call = ctypes.cast(
            ctypes.CDLL(_lib.lib.path).optclient_push_pull, ctypes.c_void_p)

    def push_pull(self, model, gradients, weights):
        def once():
            took = self._once(self._call, model._handle, gradients.address, weights.address,
                              gradients.count)
            assert took >= 0
            return took
        return once


def timed(function):
    def once():
        begin = time.perf_counter()
        function()
        return time.perf_counter() - begin
    return once


def compare(what, first, second, rounds):
    a, b = [], []
    for i in range(rounds):
        for times, function in ((a, first), (b, second)) if i % 2 else ((b, second), (a, first)):
            times.append(function())
    a, b = sorted(a[rounds // 10:]), sorted(b[rounds // 10:])
    tenth = len(a) // 10
    print(f"{what:58} {a[tenth] * 1e6:9.1f} us {b[tenth] * 1e6:9.1f} us   "
          f"p10 {b[tenth] / a[tenth]:5.2f}   median "
          f"{statistics.median(b) / statistics.median(a):5.2f}", flush=True)


def arrays(tensors, parameters):
    return {f"t{i}": np.full(parameters // tensors, 0.5, np.float32) for i in range(tensors)}


def plans(c, address, way, options, large):
    for tensors, parameters, rounds in ((8, 1000, 4000), (160, 1000, 3000),
                                        (8, 25_000_000, 25))[:3 if large else 2]:
        with optimd.connect(address, worker="w0", **options) as ps:
            g, w = arrays(tensors, parameters), arrays(tensors, parameters)
            m = ps.create("plan", "sgd(lr=1e-6)", w)
            plan = m.plan(g, w)
            compare(f"Plan.push_pull, {way}, {tensors} tensors, {parameters:,} parameters",
                    c.push_pull(m, plan._exchange.pushed, plan._exchange.pulled),
                    timed(plan.push_pull), rounds)
            m.close()
            ps.delete("plan")


def optimizers(c, address, way, large):
    for parameters, rounds in ((1000, 2000), (25_000_000, 25))[:2 if large else 1]:
        named = [(f"t{i}", torch.nn.Parameter(torch.zeros(parameters // 160)))
                 for i in range(160)]
        for _, p in named:
            p.grad = torch.full_like(p, 0.5)
        with optimd.torch.Optimizer(named, address, "sgd(lr=1e-6)", model="opt") as opt:
            opt.step()
            table = opt._push_table
            gradients = [p.grad for _, p in named]  # whose addresses are in the table
            compare(f"Optimizer.step, {way}, 160 tensors, {parameters:,} parameters",
                    c.push_pull(opt.model, table, opt._pull_table), timed(opt.step), rounds)
            del gradients
            opt.model.close()
            opt.client.delete("opt")
    if not large:
        return
    named = [(f"t{i}", torch.nn.Parameter(torch.zeros(25_000_000 // 160))) for i in range(160)]
    for _, p in named:
        p.grad = torch.full_like(p, 0.5)
    plain = torch.optim.Adam([p for _, p in named], lr=1e-6)
    with optimd.torch.Optimizer(named, address, "torch.adam(lr=1e-6)", model="adam") as opt:
        compare(f"Optimizer.step to torch.optim.Adam.step, {way}, 25 M",
                timed(plain.step), timed(opt.step), 20)


def waits(address):
    with optimd.connect(address, worker="w0") as ps:
        m = ps.create("waits", "sgd(lr=1e-6)", arrays(8, 1000))
        into = m.pull()
        table = m._layout.weights(into)
        handle = m._handle
        blocking = _lib.lib  # the same call, deaf until it ends
        pull = ctypes.CDLL(blocking.path).optclient_pull
        pull.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p,
                         ctypes.c_void_p]
        compare("Model.pull to a blocking pull, unix",
                timed(lambda: pull(handle, table.address, table.count, None, None)),
                timed(lambda: m.pull(into=into)), 3000)

        async def main():
            async with optimd.aio.connect(address, worker="") as actor:
                seen = await actor.open("waits")
                mine = {name: value.copy() for name, value in into.items()}
                a, b = [], []
                for i in range(2000):
                    begin = time.perf_counter()
                    await seen.pull(into=mine)
                    middle = time.perf_counter()
                    m.pull(into=into)
                    b.append(middle - begin)
                    a.append(time.perf_counter() - middle)
                a, b = sorted(a), sorted(b)
                print(f"{'aio Model.pull to Model.pull, unix':58} {a[200] * 1e6:9.1f} us "
                      f"{b[200] * 1e6:9.1f} us   p10 {b[200] / a[200]:5.2f}   median "
                      f"{b[1000] / a[1000]:5.2f}")

        asyncio.run(main())


def main():
    large = "--small" not in sys.argv[1:]  # only what is of calls, not of their bytes
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(prefix="optimd-bench-") as folder:
        c = C(folder)
        daemon = Daemon(Path(folder))
        try:
            print(f"{'':58} {'C or torch':>12} {'optimd':>12}")
            for address, way, options in ((daemon.unix, "unix", {}), (daemon.tcp, "tcp", {})):
                plans(c, address, way, options, large)
                optimizers(c, address, way, large)
            waits(daemon.unix)
        finally:
            daemon.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
