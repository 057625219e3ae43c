"""Steps of PyTorch's optimizers on request, for bench_optimd.

usage: torch_step.py PARAMETERS TENSORS

Says "torch VERSION", or "none" if PyTorch is not installed, then answers each line
"adam|adamw|momentum single|foreach THREADS" with the seconds of one step.
"""

import sys
import time


def say(text):
    print(text, flush=True)


def main():
    try:
        import torch
    except ImportError:
        say("none")
        return
    parameters, tensors = int(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(1)
    weights = [torch.randn(parameters // tensors) * 0.1 for _ in range(tensors)]
    for weight in weights:
        weight.requires_grad_(True)
        weight.grad = torch.randn_like(weight) * 0.01
    makers = {
        "adam": lambda foreach: torch.optim.Adam(weights, lr=1e-3, foreach=foreach),
        "adamw": lambda foreach: torch.optim.AdamW(weights, lr=1e-3, foreach=foreach),
        "momentum": lambda foreach: torch.optim.SGD(
            weights, lr=1e-2, momentum=0.9, foreach=foreach
        ),
    }
    optimizers = {}
    say("torch " + torch.__version__)
    for line in sys.stdin:
        rule, form, threads = line.split()
        key = (rule, form)
        if not any(rule == other for other, _ in optimizers):
            optimizers.clear()  # the memory of the last rule's state
        if key not in optimizers:
            optimizers[key] = makers[rule](form == "foreach")
        torch.set_num_threads(int(threads))
        begin = time.perf_counter()
        optimizers[key].step()
        say(time.perf_counter() - begin)


main()
