"""Processes: signals while something waits, fork, spawn, the daemon's death, and the end
of the interpreter with calls in progress."""
from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import optimd


def run(code, *arguments, interrupt=False, timeout=30):
    """Run a program that says "ready" before it does what is to be interrupted."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    if interrupt:
        line = process.stdout.readline()
        assert line == "ready\n", line + process.stdout.read()
        process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=timeout)
    return process.returncode, "".join(lines) + out


WAITS = {
    "pull": "m.pull(min_step=9)",
    "push": "m.push({'w': np.ones(4)})",
    "push_pull": "m.push_pull({'w': np.ones(4)}, into=w)",
    "plan": "plan.push_pull()",
    "result": "m.pull_async(min_step=9).result()",
    "wait_step": "m.wait_step(9)",
    "barrier": "m.barrier()",
    "pull_in_place": "m.pull_in_place(min_step=9)",
    "connect": "optimd.connect('127.0.0.1:1')",
    "create": "ps.create('other', 'sgd', {'w': (1,)})",
    "local": "local.step({'w': np.ones(4)})",
}


@pytest.mark.parametrize("what", WAITS)
def test_ctrl_c(daemon, what):
    """KeyboardInterrupt at once, from each method that waits; and all ends well."""
    code = f"""
        import os, sys, threading, time
        import numpy as np
        import optimd
        ps = optimd.connect(sys.argv[1], worker="w0", timeout=20)
        m = ps.create("m", "sgd(lr=1)", {{"w": np.zeros(4)}},
                      policy=optimd.Policy(min_workers=2))
        w = m.pull()
        plan = m.plan({{"w": np.ones(4, np.float32)}}, w)
        local = m.local("sgd", 1) if {what!r} == "local" else None
        if {what!r} == "create":
            os.kill(int(sys.argv[2]), 19)  # SIGSTOP: it does not answer
        at = []
        try:
            print("ready", flush=True)
            {WAITS[what]}
            print("not interrupted")
        except KeyboardInterrupt:
            print("interrupted")
        if {what!r} == "create":
            os.kill(int(sys.argv[2]), 18)
    """
    begin = time.monotonic()
    status, out = run(code, daemon.tcp, str(daemon.process.pid), interrupt=True)
    assert status == 0 and out == "interrupted\n", out
    assert time.monotonic() - begin < 15  # and not the deadline of 20 s


def test_an_interrupt_is_seen_within_150_ms(daemon):
    with optimd.connect(daemon.tcp, worker="w0", timeout=10) as ps:
        m = ps.create("m", "sgd(lr=1)", {"w": (4,)})
        took = []
        for wait in (lambda: m.pull(min_step=9), lambda: m.wait_step(9)):
            for _ in range(5):
                sent = []

                def interrupt(signum, frame):
                    sent.append(time.monotonic())
                    raise KeyboardInterrupt

                before = signal.signal(signal.SIGALRM, interrupt)
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                begin = time.monotonic()
                try:
                    with pytest.raises(KeyboardInterrupt):
                        wait()
                    took.append(time.monotonic() - begin - 0.05)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    signal.signal(signal.SIGALRM, before)
        assert sorted(took)[len(took) // 2] < 0.15
        m.push({"w": np.ones(4)})  # nothing is broken


def test_a_forked_child_is_told(daemon):
    with optimd.connect(daemon.unix, worker="w0") as ps:
        m = ps.create("m", "sgd(lr=1)", {"w": (70000,)})
        gradient = m.gradient("w")
        call = m.pull_async(min_step=1)
        child = os.fork()
        if child == 0:
            try:
                told = 0
                for use in (m.pull, ps.list, lambda: m.push({"w": np.ones(70000)})):
                    try:
                        use()
                    except optimd.FailedPrecondition as error:
                        told += "forked" in str(error)
                m.close()
                ps.close()
                del m, ps, call
                os._exit(0 if told == 3 else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gradient[:] = 1
        m.push({"w": gradient})
        assert call.result(10).step == 1


def work(address, name, queue):
    with optimd.connect(address, worker=name, timeout=30) as ps:
        m = ps.create("m", "sgd(lr=1)", {"w": (4,)}, policy=optimd.Policy(min_workers=2))
        w = m.pull()
        for _ in range(5):
            m.push_pull({"w": np.ones(4)}, into=w)
        queue.put(w["w"].tolist())


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes(daemon, method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=work, args=(address, name, queue))
                 for name, address in (("a", daemon.tcp), ("b", daemon.unix))]
    for process in processes:
        process.start()
    assert [queue.get(timeout=30) for _ in processes] == [[-5.0] * 4] * 2
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_a_killed_worker_does_not_hang_the_others(daemon):
    policy = optimd.Policy(min_workers=1)
    with optimd.connect(daemon.tcp, worker="w0", timeout=30) as ps:
        m = ps.create("m", "sgd(lr=1)", {"w": (4,)}, policy=policy)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent("""
                import sys, optimd
                ps = optimd.connect(sys.argv[1], worker="w1")
                m = ps.open("m")
                print("ready", flush=True)
                m.pull(min_step=99)
            """), daemon.tcp], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        call = m.push_async({"w": np.ones(4)})
        assert not call.done()  # the round waits for the other
        process.kill()
        process.wait()
        result = call.result(30)
        assert result.fate is optimd.Fate.APPLIED
        process.stdout.close()


def test_the_daemon_is_killed_while_it_is_waited_for(daemon):
    ps = optimd.connect(daemon.tcp, worker="w0", timeout=2)
    m = ps.create("m", "sgd(lr=1)", {"w": (4,)}, policy=optimd.Policy(min_workers=2))
    call = m.push_async({"w": np.ones(4)})
    waits = m.pull_async(min_step=9)
    assert not call.done()
    daemon.kill()
    failed = call.exception(20)
    assert isinstance(failed, (ConnectionError, TimeoutError))
    assert failed.result.fate in (optimd.Fate.NOT_KNOWN, optimd.Fate.NOT_APPLIED)
    assert isinstance(waits.exception(20), (ConnectionError, TimeoutError))
    with pytest.raises((ConnectionError, TimeoutError)):
        m.pull(timeout=0.3)
    m.close()
    ps.close()


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "del m, ps, call", "ps.close()"])
def test_the_interpreter_ends_with_calls_in_progress(daemon, end):
    status, out = run(f"""
        import sys, threading
        import numpy as np
        import optimd
        ps = optimd.connect(sys.argv[1], worker="w0")
        m = ps.create("m", "sgd(lr=1)", {{"w": (1000,)}})
        call = m.pull_async(min_step=9)
        call.add_done_callback(lambda done: None)
        for _ in range(10):
            m.push_async({{"w": np.ones(1000)}})
        m.pull_async(min_step=99)
        view = m.gradient("w")
        threading.Thread(target=lambda: m.wait_step(99), daemon=True).start()
        {end}
    """, daemon.unix)
    wanted = [line for line in out.splitlines() if "Exception in thread" in line
              or "Fatal" in line or "Segmentation" in line]
    assert status == 0 and not [w for w in wanted if "Fatal" in w], out


def test_data_loader_workers(daemon):
    torch = pytest.importorskip("torch")
    import optimd.torch

    model = torch.nn.Linear(2, 1)
    data = torch.utils.data.TensorDataset(torch.ones(32, 2), torch.ones(32, 1))
    with optimd.torch.Optimizer(model.named_parameters(), daemon.unix, "sgd(lr=0.1)",
                                model="m") as opt:
        for x, y in torch.utils.data.DataLoader(data, batch_size=8, num_workers=2):
            opt.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            opt.step(samples=len(x))
        assert opt.result.step == 4
