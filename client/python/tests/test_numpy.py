"""The NumPy client: values, dtypes, shapes, errors, memory in place, asynchronous calls."""
from __future__ import annotations

import concurrent.futures
import gc
import pickle
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import optimd


def model_of(ps, tensors, specification="sgd(lr=1)", name="m", **options):
    return ps.create(name, specification, tensors, **options)


def test_pushes_and_pulls(server):
    with server.connect(worker="w0") as ps:
        w0 = np.arange(6, dtype=np.float32).reshape(2, 3)
        with model_of(ps, {"w": w0, "b": (4,), "s": ()}) as m:
            assert m.tensors["w"] == optimd.Tensor("w", (2, 3))
            assert m.specification.startswith("sgd")
            w = m.pull()
            assert list(w) == ["w", "b", "s"] and w["w"].dtype == np.float32
            np.testing.assert_array_equal(w["w"], w0)
            assert w["s"].shape == () and w.step == 0
            gradient = {"w": np.ones((2, 3)), "b": np.full(4, 2, np.float32), "s": 3.0}
            result = m.push(gradient, samples=4)
            assert result.fate is optimd.Fate.APPLIED and result.step == 1 == m.step
            result = m.push_pull(gradient, into=w)
            assert result.step == 2
            np.testing.assert_array_equal(w["w"], w0 - 2)
            np.testing.assert_array_equal(w["b"], np.full(4, -4))
            assert w["s"] == -6
            some = m.pull(["s"])
            assert list(some) == ["s"] and some["s"] == -6
            assert m.push({"s": 1.0}).step == 3  # some tensors only


def test_plan_uses_arrays_as_they_are(server):
    with server.connect(worker="w0") as ps, model_of(ps, {"w": (100,), "b": (3, 2)}) as m:
        g = {"w": np.zeros(100, np.float32), "b": np.zeros((3, 2), np.float32)}
        w = m.pull()
        plan = m.plan(g, w)
        for step in range(1, 6):
            g["w"] += 1
            g["b"][1] = step
            assert plan.push_pull(samples=step).step == step
        np.testing.assert_array_equal(w["w"], np.full(100, -15))
        np.testing.assert_array_equal(w["b"], [[0, 0], [-15, -15], [0, 0]])
        with pytest.raises(TypeError, match="gradient 'w' of a plan has to be fp32"):
            m.plan({"w": np.zeros(100)}, w)
        g["w"][3] = np.nan
        with pytest.raises(optimd.InvalidArgument, match='"w"') as refused:
            plan.push_pull()
        assert refused.value.result.fate is optimd.Fate.NOT_APPLIED


def test_memory_in_place(server):
    with server.connect(worker="w0") as ps, model_of(ps, {"w": (70000,), "b": (3,)}) as m:
        g = {name: m.gradient(name) for name in m.tensors}
        g["w"][:] = 2
        g["b"][:] = 5
        with pytest.raises(optimd.FailedPrecondition, match="nothing has been pulled"):
            m.weights("w")
        m.push(g)
        m.pull_in_place()
        w = m.weights("w")
        assert not w.flags.writeable
        with pytest.raises(ValueError):
            w[0] = 1
        np.testing.assert_array_equal(w, np.full(70000, -2))
        # The library's memory stays as long as somebody looks at it.
        m.close()
        ps.close()
        np.testing.assert_array_equal(w[69990:], np.full(10, -2))
        assert g["b"].sum() == 15
        del w, g
        gc.collect()
        assert m._handle is None and ps._handle is None


def test_sparse_tables(server):
    with server.connect(worker="w0") as ps:
        with model_of(ps, {"e": (10, 3), "b": (2,)}, sparse=["e"]) as m:
            assert m.tensors["e"].sparse
            rows = optimd.Rows([7, 1, 7], np.ones((3, 3)))
            m.push({"e": rows, "b": np.zeros(2)})
            w = m.pull()["e"]
            assert w[7].tolist() == [-2] * 3 and w[1].tolist() == [-1] * 3
            assert w.sum() == -9
            m.push({"e": optimd.Rows([], np.empty((0, 3)))})
            with pytest.raises(optimd.InvalidArgument, match="rows of 'e' are 1 to 10"):
                m.push({"e": optimd.Rows([1, 10], np.ones((2, 3)))})
            with pytest.raises(optimd.InvalidArgument, match="'e' is sparse"):
                m.push({"e": np.ones((10, 3))})
            with pytest.raises(optimd.InvalidArgument, match="'b' is not sparse"):
                m.push({"b": rows})


def test_views_slots_and_since(server):
    with server.connect(worker="w0") as ps:
        with model_of(ps, {"w": (5,)}, "adam(lr=0.1) + lookahead(2)") as m:
            w = m.pull()
            for _ in range(3):
                m.push_pull({"w": np.ones(5)}, into=w)
            assert not np.array_equal(m.pull(view="eval")["w"], w["w"])
            slot = m.pull(slot="exp_avg")["w"]
            np.testing.assert_allclose(slot, np.full(5, 1 - 0.9 ** 3), rtol=1e-6)
            with pytest.raises(optimd.NotFound, match="exp_avg"):
                m.pull(slot="no_such")
            again = m.pull(into=w, since=3)
            assert again.result.unchanged == 5
            description = m.describe()
            assert description.step == 3 and "exp_avg" in description.slots
            assert description.lr == pytest.approx(0.1)
            assert [x.name for x in description.workers] == ["w0"]


def test_errors_are_pythons_own(daemon):
    with pytest.raises(ValueError, match="HOST:PORT"):
        optimd.connect("nonsense")
    with pytest.raises(TimeoutError) as caught:
        optimd.connect("127.0.0.1:1", connect_timeout=0.3)
    assert caught.value.status == "DEADLINE_EXCEEDED" and caught.value.code == 4
    for option in ("ca", "token_file"):
        with pytest.raises(optimd.Error, match="/none/there"):
            optimd.connect(daemon.tcp, connect_timeout=5, **{option: "/none/there"})
    with optimd.connect(daemon.tcp, worker="w0", timeout=10) as ps:
        with pytest.raises(LookupError, match="none"):
            ps.open("none")
        with pytest.raises(optimd.InvalidArgument, match="adam"):
            ps.create("m", "adan", {"w": (1,)})
        m = model_of(ps, {"weight": (2, 3), "bias": (3,)})
        with pytest.raises(optimd.AlreadyExists):
            model_of(ps, {"weight": (2, 3), "bias": (3,)}, "adam")
        with pytest.raises(ValueError, match="no tensor 'wieght'; is it 'weight'?"):
            m.push({"wieght": np.ones((2, 3))})
        with pytest.raises(ValueError, match=r"shape \(3, 2\); the model has \(2, 3\)"):
            m.push({"weight": np.ones((3, 2))})
        with pytest.raises(TypeError, match="complex"):
            m.push({"bias": np.ones(3, complex)})
        with pytest.raises(ValueError, match="weight") as refused:
            m.push({"weight": np.full((2, 3), 1e300), "bias": np.zeros(3)})
        assert refused.value.result.fate is optimd.Fate.NOT_APPLIED
        assert refused.value.detail.name == "NOT_FINITE"
        w = m.pull()
        for bad in (np.zeros((2, 3)), np.zeros((3, 2), np.float32).T,
                    np.zeros((2, 6), np.float32)[:, ::2]):
            with pytest.raises(TypeError, match="cannot be written"):
                m.pull(into={"weight": bad})
        read_only = np.zeros(3, np.float32)
        read_only.flags.writeable = False
        with pytest.raises(TypeError, match="read-only"):
            m.pull(into={"bias": read_only})
        with pytest.raises(ValueError, match="samples is 0"):
            m.push(w, samples=0)
        with pytest.raises(ValueError, match="timeout is 0"):
            m.push(w, timeout=0)
        with pytest.raises(ValueError, match="view is 'slow'"):
            m.pull(view="slow")
        with pytest.raises(TimeoutError):
            m.pull(min_step=5, timeout=0.1)
        with pytest.raises(TimeoutError):
            m.wait_step(5, timeout=0.1)
        with pytest.raises(optimd.FailedPrecondition, match="[Ll]ookahead"):
            m.wait_epoch(1)
        with pytest.raises(optimd.FailedPrecondition, match="data-dir"):
            m.wait_durable(1)
        m.close()
        m.close()
        with pytest.raises(optimd.FailedPrecondition, match="'m' is closed"):
            m.pull()
        with optimd.connect(daemon.tcp, worker="") as observer:
            with pytest.raises(PermissionError):
                model_of(observer, {"x": (1,)}, name="other")
        for thing in (ps, m):
            with pytest.raises(TypeError, match="of one process"):
                pickle.dumps(thing)
        ps.delete("m")
    with pytest.raises(optimd.FailedPrecondition, match="is closed"):
        ps.list()
    assert "closed" in repr(ps) and "closed" in repr(m)


def test_operators_words(daemon, tmp_path):
    with optimd.connect(daemon.unix, worker="w0") as ps:
        m = model_of(ps, {"w": np.ones(3)}, "adam(lr=0.1)")
        m.push({"w": np.ones(3)})
        assert [(i.name, i.step, i.workers) for i in ps.list()] == [("m", 1, 1)]
        assert ps.set("m", "lr=0.5") == 2
        assert m.describe().changes[0].step == 2
        assert all(isinstance(value, int) for value in ps.statistics().values())
        usage = ps.usage()
        assert usage.pushes == 1 and usage.reconnects == 0
        ps.export("m", tmp_path / "m.safetensors", slots=True)
        copy = ps.import_("copy", "sgd(lr=1)", tmp_path / "m.safetensors")
        np.testing.assert_array_equal(copy.pull()["w"], m.pull()["w"])
        assert m.barrier().step >= 0
        m.rest()
        assert m.lost() == []
        assert "sgd" in repr(copy) and daemon.unix in repr(ps) and "'m'" in repr(m)


def test_two_workers_average(daemon):
    policy = optimd.Policy(min_workers=2)
    outcomes = {}

    def work(name, value):
        with optimd.connect(daemon.tcp, worker=name, timeout=20) as ps:
            m = ps.create("m", "sgd(lr=1)", {"w": np.zeros(4)}, policy=policy)
            w = m.pull()
            for _ in range(10):
                m.push_pull({"w": np.full(4, value)}, into=w)
            outcomes[name] = w["w"]

    threads = [threading.Thread(target=work, args=(n, v)) for n, v in (("a", 1), ("b", 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(outcomes["a"], np.full(4, -20))
    np.testing.assert_array_equal(outcomes["b"], outcomes["a"])


def test_actor_refreshes(daemon):
    with optimd.connect(daemon.tcp, worker="w0") as ps, \
            optimd.connect(daemon.unix, worker="") as actor:
        m = model_of(ps, {"w": (3,), "b": (2,)})
        seen = actor.open("m")
        mine = {"w": np.ones(3)}
        assert seen.refresh(mine) and mine["w"].sum() == 0
        assert not seen.refresh(mine)
        m.push({"w": np.ones(3)})
        assert seen.refresh(mine) and mine["w"].sum() == -3
        assert not seen.refresh(mine)
        other = {"w": np.ones(3)}
        assert seen.refresh(other) and other["w"].sum() == -3
        with pytest.raises(ValueError, match="no tensor"):
            seen.refresh({})


# ------------------------------------------------------------------------ asynchronous


def test_futures(server):
    with server.connect(worker="w0") as ps, model_of(ps, {"w": (4,)}) as m:
        call = m.push_async({"w": np.ones(4)})
        assert call.result(10).step == 1 and call.done() and call.exception() is None
        assert not call.cancel() and not call.cancelled() and "done" in repr(call)

        waits = m.pull_async(min_step=3)
        assert not waits.done() and waits.running() and "in progress" in repr(waits)
        with pytest.raises(concurrent.futures.TimeoutError):
            waits.result(0.01)
        told = threading.Event()
        seen = []
        waits.add_done_callback(lambda done: (seen.append(done), told.set()))
        m.push({"w": np.ones(4)})
        m.push({"w": np.ones(4)})
        assert told.wait(10) and seen == [waits]
        np.testing.assert_array_equal(waits.result()["w"], np.full(4, -3))
        at_once = []
        waits.add_done_callback(at_once.append)
        assert at_once == [waits]

        never = m.pull_async(min_step=100)
        cancelled = threading.Event()
        never.add_done_callback(lambda done: cancelled.set())
        assert never.cancel() and never.cancelled() and cancelled.wait(10)
        with pytest.raises(concurrent.futures.CancelledError):
            never.result()
        failed = m.push_async({"w": np.full(4, np.inf)})
        assert isinstance(failed.exception(10), optimd.InvalidArgument)
        assert failed.exception().result.fate is optimd.Fate.NOT_APPLIED
        assert ps.usage().reconnects == 0


def test_a_failing_callback_is_a_warning(daemon):
    with optimd.connect(daemon.tcp, worker="w0") as ps, model_of(ps, {"w": (4,)}) as m:
        call = m.pull_async()
        call.result()
        with pytest.warns(RuntimeWarning, match="callback of"):
            call.add_done_callback(lambda done: 1 / 0)


def test_many_threads_of_one_client(server):
    with server.connect(worker="w0") as ps:
        m = model_of(ps, {"w": (1000,)}, policy=optimd.Policy(mode="async"))
        errors = []

        def work():
            try:
                for _ in range(50):
                    m.push({"w": np.ones(1000)})
                    m.pull()
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        np.testing.assert_array_equal(m.pull()["w"], np.full(1000, -200))


@pytest.mark.parametrize("closes", ["model", "client"])
@pytest.mark.parametrize("waits", ["pull", "wait_step"])
def test_close_by_another_thread(server, closes, waits):
    ps = server.connect(worker="w0")
    m = model_of(ps, {"w": (4,)})
    started = threading.Event()
    caught = []

    def wait():
        started.set()
        try:
            m.pull(min_step=9) if waits == "pull" else m.wait_step(9)
        except optimd.Error as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    (m if closes == "model" else ps).close()
    thread.join(10)
    assert not thread.is_alive() and len(caught) == 1
    assert isinstance(caught[0], (optimd.Cancelled, optimd.FailedPrecondition))
    ps.close()


def test_dropped_calls_keep_what_was_lent_to_them(server):
    with server.connect(worker="w0") as ps, model_of(ps, {"w": (1000,)}) as m:
        for step in range(1, 51):
            m.push_async({"w": np.ones(1000)})  # dropped at once
            if step % 10 == 0:
                gc.collect()
        assert m.pull(min_step=50)["w"].sum() == -50000
        m.pull_async(min_step=999)  # ends with the client
        gc.collect()
        assert len(ps._orphans) >= 1


def test_no_growth_over_2000_calls(daemon):
    import resource

    def memory():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    with optimd.connect(daemon.unix, worker="w0", shared_memory=False) as ps:
        m = model_of(ps, {"w": (10000,)}, policy=optimd.Policy(mode="async"))
        into = m.pull()
        called = []
        for i in range(2200):
            call = m.pull_async(into=into)
            if i % 4 == 0:
                call.add_done_callback(called.append)
                call.result()
                called.clear()
            elif i % 4 != 1:  # the others are dropped
                call.result()
            del call
            if i == 200:
                gc.collect()
                before = memory()
        gc.collect()
        m.pull()
        assert len(ps._calls) == 0 and len(ps._orphans) <= 2
        assert memory() - before < 4 << 20


# ------------------------------------------------------------- whatever arrays there are


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_dtype_shape_and_order_in_memory(daemon, data):
    shape = data.draw(npst.array_shapes(min_dims=0, max_dims=4, max_side=5))
    dtype = data.draw(st.sampled_from(["<f4", ">f4", "f8", "f2", "i4", "u1", "i8"]))
    array = data.draw(npst.arrays(dtype, shape, elements=st.integers(0, 100)))
    order = data.draw(st.sampled_from("CFTR"))
    if order == "F":
        array = np.asfortranarray(array).reshape(shape)
    elif order == "T":
        array = array.T
    elif order == "R" and array.ndim:
        array = array[::-1]
    with optimd.connect(daemon.unix, worker="w0") as ps:
        with model_of(ps, {"w": array.shape}, name="any") as m:
            m.push({"w": array})
            np.testing.assert_array_equal(m.pull()["w"], -array.astype(np.float32))
        ps.delete("any")


@settings(max_examples=30, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1,
                              max_size=20), min_size=1, max_size=6, unique=True),
       seed=st.randoms())
def test_any_names_in_any_order(daemon, names, seed):
    with optimd.connect(daemon.tcp, worker="w0") as ps:
        with model_of(ps, {n: np.full(2, i) for i, n in enumerate(names)}, name="n") as m:
            order = list(names)
            seed.shuffle(order)
            w = m.pull(order)
            assert list(w) == order
            for i, name in enumerate(names):
                assert w[name].tolist() == [i, i]
            m.push({n: np.full(2, names.index(n)) for n in order})
            assert all(v.sum() == 0 for v in m.pull().values())
        ps.delete("n")
