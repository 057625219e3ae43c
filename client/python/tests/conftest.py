"""A daemon of its own for each test, ended with it. Tests wait for events, never for
time."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator, List, Optional

import pytest
from hypothesis import settings

# The same examples in each run, and nothing left behind.
settings.register_profile("optimd", database=None, derandomize=True)
settings.load_profile("optimd")

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / os.environ.get("OPTIMD_BUILD", "build")
SOURCES = str(Path(__file__).resolve().parents[1] / "src")
sys.path.insert(0, SOURCES)
os.environ["PYTHONPATH"] = SOURCES  # of the programs that tests start
os.environ.setdefault("OPTIMD_LIBRARY", str(BUILD / "liboptclient.so.0"))


class Daemon:
    """A real optimd on a free port and a Unix socket."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.start()

    def start(self, port: int = 0) -> None:
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(BUILD / "optimd"), "--listen",
                 f"127.0.0.1:{port},unix:{self.folder}/socket", "--port-file",
                 str(port_file), *self.options], stderr=log)
        while not (port_file.exists() and port_file.read_text().strip()):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.01)  # the file is the event; nothing tells of it
        self.port = int(port_file.read_text().split()[0])

    @property
    def tcp(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def unix(self) -> str:
        return f"unix:{self.folder}/socket"

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(20) == 0, (self.folder / "log").read_text()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="optimd-python-") as folder:
        daemon = Daemon(Path(folder))
        try:
            yield daemon
        finally:
            daemon.stop()


class Server:
    """A daemon by one of the ways to it."""

    def __init__(self, daemon: Daemon, way: str) -> None:
        self.daemon = daemon
        self.way = way
        self.address = daemon.tcp if way == "tcp" else daemon.unix

    def connect(self, **options):  # type: ignore[no-untyped-def]
        import optimd
        options.setdefault("timeout", 10)
        return optimd.connect(self.address, shared_memory=self.way == "shared", **options)


@pytest.fixture(params=["tcp", "unix", "shared"])
def server(request: pytest.FixtureRequest, daemon: Daemon) -> Server:
    return Server(daemon, request.param)


# The last line is for tests/run, which counts.
_counts: List[str] = []


def pytest_terminal_summary(terminalreporter, exitstatus, config):  # type: ignore
    stats = terminalreporter.stats
    passed = len(stats.get("passed", []))
    failed = len(stats.get("failed", [])) + len(stats.get("error", []))
    skipped = len(stats.get("skipped", []))
    _counts[:] = [f"{passed} passed, {failed} failed"
                  + (f", {skipped} skipped" if skipped else "")]


def pytest_unconfigure(config):  # type: ignore[no-untyped-def]
    if _counts:
        print(_counts[0], flush=True)
