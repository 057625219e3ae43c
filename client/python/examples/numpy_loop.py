"""Linear regression with NumPy, and an actor in another thread that only pulls.

    optimd --listen 127.0.0.1:7070 &
    python3 numpy_loop.py
"""
import argparse
import threading

import numpy as np

import optimd


def act(server, stop, seen):
    """Use whatever weights there are, and look for newer ones in between."""
    with optimd.connect(server, worker="") as ps:
        model = ps.open("lin")
        mine = {name: np.zeros(tensor.shape, np.float32)
                for name, tensor in model.tensors.items()}
        while not stop.is_set():
            if model.refresh(mine):
                seen.append(model.step)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", help="HOST:PORT or unix:/PATH")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    truth = rng.normal(size=8).astype(np.float32)
    x = rng.normal(size=(256, 8)).astype(np.float32)
    y = x @ truth + 0.5

    with optimd.connect(arguments.server, worker="w0") as ps:
        model = ps.create("lin", "adam(lr=0.05)", {"w": np.zeros(8), "b": ()})
        stop, seen = threading.Event(), []
        actor = threading.Thread(target=act, args=(arguments.server, stop, seen))
        actor.start()
        weights = model.pull()
        gradients = {name: np.empty_like(value) for name, value in weights.items()}
        plan = model.plan(gradients, weights)  # the same arrays in each step
        for _ in range(arguments.steps):
            error = x @ weights["w"] + weights["b"] - y
            gradients["w"][...] = 2 * error @ x / len(x)
            gradients["b"][...] = 2 * error.mean()
            result = plan.push_pull(samples=len(x))
        stop.set()
        actor.join()
        print(f"step {result.step}, loss {np.mean(error ** 2):.2e}, the actor saw "
              f"{len(seen)} sets of weights")


if __name__ == "__main__":
    main()
