"""The examples do what they say."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def start(name, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(EXAMPLES / name), *arguments],
                            stdout=subprocess.PIPE, text=True, env=environment)


def outcome(process):
    out, _ = process.communicate(timeout=50)
    assert process.returncode == 0
    return out


def test_digits_in_two_processes(daemon):
    processes = [start("digits.py", "--server", address, "--epochs", "5", "--workers", "2")
                 for address in (daemon.tcp, daemon.unix)]
    said = [outcome(p) for p in processes]
    assert said[0] == said[1]
    assert float(re.search(r"accuracy ([\d.]+)%", said[0]).group(1)) > 90


def test_diloco_moves_less(daemon):
    said = outcome(start("diloco.py", "--server", daemon.tcp))
    rows = [[float(n) for n in re.findall(r"accuracy ([\d.]+)%, ([\d.]+) kB", line)[0]]
            for line in said.splitlines()]
    (plain, each), (local, less) = rows
    assert plain > 90 and local > 85
    assert less < each / 10


def test_numpy_loop(daemon):
    said = outcome(start("numpy_loop.py", "--server", daemon.unix))
    assert float(re.search(r"loss ([\d.e+-]+)", said).group(1)) < 1e-3
