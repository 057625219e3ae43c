"""A parameter server of PyTorch's RPC, or a worker of it, for bench_optimd.

usage: torch_rpc.py RANK WORLD FILE TENSORS ELEMENTS

Rank 0 is the server. All meet at FILE. Says "torch VERSION" when they have, or "none" if
PyTorch or its RPC is not there. A worker then answers each line "STEPS" with the median
seconds of a step: for each tensor one asynchronous call with its gradient, answered by
the new weights once the gradients of all workers have come and Adam was applied to their
sum. The transport is the one that TensorPipe chooses.
"""

import os
import statistics
import sys
import threading
import time


def say(text):
    print(text, flush=True)


try:
    import torch
    import torch.distributed.rpc as rpc
except ImportError:
    torch = rpc = None


class Server:
    """Tensors, each with an Adam and a round of its own."""

    def __init__(self, workers, tensors, elements):
        self.workers = workers
        self.lock = threading.Lock()
        self.weights = [torch.randn(elements) * 0.1 for _ in range(tensors)]
        self.adams = [torch.optim.Adam([w], lr=1e-3, foreach=False) for w in self.weights]
        self.counts = [0] * tensors
        self.rounds = [torch.futures.Future() for _ in range(tensors)]

    def push(self, index, gradient):
        weights = self.weights[index]
        with self.lock:
            answer = self.rounds[index]
            if self.counts[index] == 0:
                weights.grad = gradient
            else:
                weights.grad += gradient
            self.counts[index] += 1
            if self.counts[index] < self.workers:
                return answer
            self.adams[index].step()
            self.counts[index] = 0
            self.rounds[index] = torch.futures.Future()
        answer.set_result(weights)
        return answer


server = None


def push(index, gradient):
    return server.push(index, gradient)


if rpc is not None and rpc.is_available():
    push = rpc.functions.async_execution(push)


def steps_of(tensors, elements):
    gradients = [torch.randn(elements) * 0.01 for _ in range(tensors)]
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            calls = [
                rpc.rpc_async("rank0", push, args=(i, gradient))
                for i, gradient in enumerate(gradients)
            ]
            for call in calls:
                call.wait()
            seconds.append(time.perf_counter() - begin)
        say(statistics.median(seconds))


def main():
    global server
    if torch is None or not rpc.is_available():
        say("none")
        return
    rank, world, file, tensors, elements = sys.argv[1:]
    rank, world, tensors, elements = map(int, (rank, world, tensors, elements))
    torch.manual_seed(1)
    torch.set_num_threads(1)
    if rank == 0:
        server = Server(world - 1, tensors, elements)
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["TP_SOCKET_IFNAME"] = "lo"
    rpc.init_rpc(
        f"rank{rank}",
        rank=rank,
        world_size=world,
        rpc_backend_options=rpc.TensorPipeRpcBackendOptions(
            init_method="file://" + file
        ),
    )
    say("torch " + torch.__version__)
    if rank > 0:
        steps_of(tensors, elements)
    sys.stdin.read()


main()
