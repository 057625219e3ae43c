"""Train a network on handwritten digits. Start it in as many processes as you like: they
train one model, and end with equal weights.

    optimd --listen 127.0.0.1:7070 &
    for i in 1 2 3 4; do python3 digits.py --workers 4 & done; wait
"""
import argparse
from pathlib import Path

import numpy as np
import torch

import optimd.torch

DATA = Path(__file__).resolve().parents[2] / "examples" / "data" / "digits.csv.gz"


def load(path):
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.float32))
    return table[:, :-1] / 16, table[:, -1].long()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", help="HOST:PORT or unix:/PATH")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1,
                        help="wait until there are so many")
    parser.add_argument("--data", default=DATA)
    arguments = parser.parse_args()

    x, y = load(arguments.data)
    held_out = torch.arange(len(x)) % 5 == 0
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x[~held_out], y[~held_out]), batch_size=32,
        shuffle=True)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(),
                              torch.nn.Linear(64, 10))

    # In plain torch: torch.optim.AdamW(net.parameters(), lr=3e-3)
    with optimd.torch.Optimizer(net.named_parameters(), arguments.server,
                                "torch.adamw(lr=3e-3)", model=arguments.model,
                                policy=optimd.Policy(min_workers=arguments.workers)) as opt:
        for epoch in range(arguments.epochs):
            for images, labels in loader:
                opt.zero_grad()
                loss = torch.nn.functional.cross_entropy(net(images), labels)
                loss.backward()
                opt.step(samples=len(images))
        opt.rest()  # the others may have batches left
        opt.barrier()
        opt.pull()
        accuracy = (net(x[held_out]).argmax(1) == y[held_out]).float().mean()
        digest = sum(float(p.double().sum()) for p in net.parameters())
        print(f"step {opt.result.step}, accuracy {accuracy:.1%}, sum of weights {digest:.12f}")


if __name__ == "__main__":
    main()
