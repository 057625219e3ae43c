"""A worker of PyTorch's all-reduce over gloo, with Adam of its own, for bench_optimd.

usage: torch_gloo.py RANK WORLD FILE PARAMETERS

All workers meet at FILE. Says "torch VERSION" when they have, or "none" if PyTorch or
gloo is not there, then answers each line "STEPS" with the median seconds of a step: one
all-reduce of all gradients as one array, and Adam on one thread. The sum is not divided
by the number of workers, which saves a pass.
"""

import os
import statistics
import sys
import time


def say(text):
    print(text, flush=True)


def main():
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        import torch
        import torch.distributed as distributed
    except ImportError:
        say("none")
        return
    if not distributed.is_available() or not distributed.is_gloo_available():
        say("none")
        return
    rank, world, file, parameters = sys.argv[1:]
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method="file://" + file, rank=int(rank), world_size=int(world)
    )
    torch.manual_seed(1)
    weights = (torch.randn(int(parameters)) * 0.1).requires_grad_(True)
    gradient = torch.randn(int(parameters)) * 0.01
    weights.grad = gradient.clone()
    adam = torch.optim.Adam([weights], lr=1e-3, foreach=False)
    adam.step()
    distributed.barrier()
    say("torch " + torch.__version__)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            weights.grad.copy_(gradient)  # not counted: all-reduce has summed in place
            distributed.barrier()
            begin = time.perf_counter()
            distributed.all_reduce(weights.grad)
            adam.step()
            seconds.append(time.perf_counter() - begin)
        say(statistics.median(seconds))


main()
