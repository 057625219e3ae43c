"""DiLoCo: each worker runs ahead with AdamW of its own, and synchronises every k steps.
Compares the bytes that are moved with a push for each step.

    optimd --listen 127.0.0.1:7070 &
    python3 diloco.py
"""
import argparse
import threading

import torch

import optimd.torch
from digits import DATA, load


def train(name, make, x, y, epochs, outcome):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(),
                              torch.nn.Linear(64, 10))
    generator = torch.Generator().manual_seed(hash(name) % 1000)
    with make(net, name) as opt:
        steps = 0
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(32):
                opt.zero_grad()
                torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                opt.step(samples=len(rows))
                steps += 1
        if isinstance(opt, optimd.torch.Local):
            opt.sync()
        usage = opt.client.usage()
        outcome[name] = (net, steps, usage.bytes_sent + usage.bytes_received)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", help="HOST:PORT or unix:/PATH")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--k", type=int, default=20)
    arguments = parser.parse_args()
    x, y = load(DATA)
    held_out = torch.arange(len(x)) % 5 == 0
    mine, labels = x[~held_out], y[~held_out]
    policy = optimd.Policy(min_workers=2)

    def local(net, worker):
        return optimd.torch.Local(net.named_parameters(), arguments.server,
                                  "torch.adamw(lr=3e-3)", model="diloco", outer="diloco",
                                  k=arguments.k, worker=worker, policy=policy)

    def each_step(net, worker):
        return optimd.torch.Optimizer(net.named_parameters(), arguments.server,
                                      "torch.adamw(lr=3e-3)", model="each-step",
                                      worker=worker, policy=policy)

    for what, make in (("a push for each step", each_step),
                       (f"DiLoCo, k={arguments.k}", local)):
        outcome = {}
        workers = [threading.Thread(target=train, args=(
            f"w{i}", make, mine[i::2], labels[i::2], arguments.epochs, outcome))
            for i in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        net, steps, moved = outcome["w0"]
        accuracy = (net(x[held_out]).argmax(1) == y[held_out]).float().mean()
        print(f"{what:22} {steps} steps a worker, accuracy {accuracy:.1%}, "
              f"{moved / steps / 1000:.1f} kB moved each step")


if __name__ == "__main__":
    main()
