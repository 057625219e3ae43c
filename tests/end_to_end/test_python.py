#!/usr/bin/python3
"""A worker in another language: python3-protobuf and sockets against a real daemon.

    test_python.py DAEMON

optimd_pb2 is what protoc makes of proto/optimd.proto, found in the folder `python`
beside the daemon. Every answer is checked against arithmetic done here, with Python's
own floats rounded to fp32 where the daemon rounds. The last line counts the tests.
"""
import ctypes
import glob
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from google.protobuf import text_format

DAEMON = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else ''
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)),
                os.path.join(os.path.dirname(DAEMON), 'python')]

import optimd_pb2 as pb  # noqa: E402
import wire_by_hand as wire  # noqa: E402
from wire_by_hand import (  # noqa: E402
    Connection, Refused, body_of, fp32, from_bytes, to_bytes)

BLOCK = 16384
START_SECONDS = 20
INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS = 3, 4, 5, 6
PERMISSION_DENIED, FAILED_PRECONDITION, UNIMPLEMENTED, UNAVAILABLE = 7, 9, 12, 14


class Daemon:
    """A daemon of our own on a free port, in a folder of its own."""

    def __init__(self, program):
        self.folder = tempfile.mkdtemp(prefix='optimd-python-')
        self.log = open(os.path.join(self.folder, 'log'), 'w+', encoding='utf-8')
        port_file = os.path.join(self.folder, 'port')
        self.process = subprocess.Popen(
            [program, '--listen', '127.0.0.1:0', '--port-file', port_file,
             '--data-dir', os.path.join(self.folder, 'data')],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL))
        self.port = self._await_port(port_file)
        self._await_service()

    def _await_port(self, port_file):
        """It listens when the file is there, or it has ended."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._alive_after(0.02):
            if os.path.exists(port_file):
                with open(port_file, encoding='ascii') as file:
                    return int(file.read())
        self.log.seek(0)
        said = self.log.read()
        status = self.stop()
        raise RuntimeError(f'the daemon does not listen, status {status}: {said}')

    def _await_service(self):
        """It listens before it has looked for what there was before it ended."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with Connection(self.port) as peer:
                    peer.hello('start')
                    peer.call(goodbye=pb.Goodbye())
                return
            except Refused as refused:
                if refused.code != UNAVAILABLE or time.monotonic() > deadline:
                    raise
            self._alive_after(0.02)

    def _alive_after(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def stop(self):
        """End it and forget its folder; returns its exit status."""
        self.process.terminate()
        if self._alive_after(20):
            self.process.kill()
        status = self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder)
        return status


daemon = None


def setUpModule():
    global daemon
    daemon = Daemon(DAEMON)


def tearDownModule():
    status = daemon.stop()
    if status != 0:
        raise RuntimeError(f'the daemon ended with {status}')


def daemon_port():
    return daemon.port


def segments(*elements):
    """One whole tensor after the other."""
    return [pb.Segment(tensor=i, count=n) for i, n in enumerate(elements)]


class Worker(Connection):
    """A connection that has said hello and works on one model."""

    def __init__(self, name='python', session=7, **more):
        super().__init__(daemon.port)
        self.greeting = self.hello(name, session, **more)
        self.sequence = 0

    def create(self, model, expression, shapes, weights=None, names=None, sparse=(),
               **more):
        """Create and join; weights, if given, is one list per tensor. sparse: the
        positions of those that are."""
        table = pb.TensorTable(tensors=[
            pb.Tensor(name=names[i] if names else f't{i}', shape=shape,
                      sparse=i in sparse) for i, shape in enumerate(shapes)])
        self.elements = [math.prod(shape) for shape in shapes]
        initial = pb.CreateModel.ASSIGNED if weights else pb.CreateModel.ZEROS
        reply = self.call(create=pb.CreateModel(
            model=model, specification=pb.Specification(expression=expression),
            initial=initial, join=True, **more), data=table.SerializeToString()).model
        self.model = reply.model
        if weights and reply.created:
            self.call(assign=pb.Assign(model=self.model, last=True,
                                       segments=segments(*self.elements)),
                      data=to_bytes(sum(weights, [])))
        return reply

    def push_message(self, dtype=pb.FP32, **more):
        self.sequence += 1
        fields = {'model': self.model, 'sequence': self.sequence, 'dtype': dtype,
                  'segments': segments(*self.elements), 'last': True}
        fields.update(more)
        return pb.Push(**fields)

    def push(self, values, dtype=pb.FP32, **more):
        return self.call(push=self.push_message(dtype, **more),
                         data=to_bytes(values, dtype)).push

    def pull(self, **more):
        """All the values that were asked for, and the last reply."""
        id = self.send(pull=pb.Pull(model=self.model, **more))
        return self.gather(id, lambda reply: reply.pull)

    def gather(self, id, part):
        data = b''
        while True:
            reply = self.answer(id)
            data += reply.data
            if part(reply).last:
                return from_bytes(data, part(reply).dtype), reply


def ramp(n, scale=1.0):
    """Some values with both signs, all exact in fp32, bf16 and fp16."""
    return [scale * (i % 13 - 6) / 8 for i in range(n)]


def sgd(weights, gradient, lr):
    """One step as the daemon makes it: every operation rounded to fp32."""
    return [fp32(w - fp32(fp32(lr) * fp32(g))) for w, g in zip(weights, gradient)]


class Adam:
    """Kingma and Ba, algorithm 1, in fp32 with scalars in fp64."""

    def __init__(self, n, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
        self.m, self.v, self.t = [0.0] * n, [0.0] * n, 0
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps

    def step(self, weights, gradient):
        self.t += 1
        c1, c2 = 1 - self.beta1 ** self.t, 1 - self.beta2 ** self.t
        out = []
        for i, (w, g) in enumerate(zip(weights, gradient)):
            self.m[i] = fp32(fp32(self.beta1 * self.m[i]) + fp32((1 - self.beta1) * g))
            self.v[i] = fp32(fp32(self.beta2 * self.v[i])
                             + fp32((1 - self.beta2) * fp32(g * g)))
            u = (self.m[i] / c1) / (math.sqrt(self.v[i] / c2) + self.eps)
            out.append(fp32(w - fp32(self.lr * u)))
        return out


class OtherLanguage(unittest.TestCase):
    def assertRefused(self, code, *words):
        """The next block is answered by an Error with this code whose sentence has
        these words."""
        test = self

        class Expect:
            def __enter__(self):
                return self

            def __exit__(self, kind, error, trace):
                test.assertIs(kind, Refused, 'nothing was refused')
                test.assertEqual(error.code, code, error.message)
                for word in words:
                    test.assertIn(word, error.message)
                return True
        return Expect()

    def assertClose(self, values, expected, relative=1e-6, absolute=1e-7):
        self.assertEqual(len(values), len(expected))
        for i, (a, b) in enumerate(zip(values, expected)):
            self.assertTrue(math.isclose(a, b, rel_tol=relative, abs_tol=absolute),
                            f'element {i} is {a!r}, not {b!r}')

    # ------------------------------------------------------------ who speaks

    def test_hello_tells_the_limits(self):
        with Worker('hello') as worker:
            hello = worker.greeting
            self.assertEqual(hello.protocol, 1)
            self.assertEqual(hello.block_elements, BLOCK)
            self.assertGreaterEqual(hello.max_frame_bytes, 1 << 20)
            self.assertGreaterEqual(hello.max_header_bytes, 1 << 10)
            self.assertGreater(hello.chunk_bytes, 0)
            self.assertGreater(hello.lease_ms, hello.heartbeat_ms)
            self.assertIn('optimd', hello.server)

    def test_incarnation_counts_the_sessions_of_a_worker(self):
        with Worker('twice', session=1) as first, Worker('twice', session=2) as second:
            self.assertEqual(second.greeting.incarnation,
                             first.greeting.incarnation + 1)
            with Worker('twice', session=2) as again:
                self.assertEqual(again.greeting.incarnation,
                                 second.greeting.incarnation)

    def test_older_session_that_was_followed_is_refused(self):
        with Worker('moved', session=1) as old, Worker('moved', session=2) as new:
            granted = old.greeting.incarnation
            with Connection(daemon.port) as back:
                with self.assertRefused(FAILED_PRECONDITION, f'stale incarnation {granted}'):
                    back.hello('moved', session=1, incarnation=granted)
            with Connection(daemon.port) as again:
                hello = again.hello('moved', session=2, incarnation=new.greeting.incarnation)
                self.assertEqual(hello.incarnation, new.greeting.incarnation)
                self.assertEqual(hello.lost, '')

    def test_worker_that_comes_back_asks_what_became_of_its_pushes(self):
        with Worker('asks', session=1) as worker:
            worker.create('asked', 'sgd(lr=0.25)', [[3]])
            for _ in range(2):
                worker.push([1.0] * 3)
            with self.assertRefused(INVALID_ARGUMENT, 'not finite'):
                worker.push([math.nan] * 3)
            worker.push([1.0] * 3)
            with Connection(daemon.port) as again:
                again.hello('asks', session=1, incarnation=worker.greeting.incarnation)
                opened = again.call(open=pb.OpenModel(
                    model='asked', join=True, unanswered=[2, 3, 4, 5])).model
                self.assertEqual([(s.sequence, s.fate, s.step, s.code)
                                  for s in opened.settled],
                                 [(2, pb.PushReply.APPLIED, 2, 0),
                                  (3, pb.PushReply.REFUSED, 2, INVALID_ARGUMENT),
                                  (4, pb.PushReply.APPLIED, 3, 0)])
                self.assertEqual(opened.last_sequence, 4)

    def test_first_message_must_be_hello(self):
        with Connection(daemon.port) as connection:
            with self.assertRefused(FAILED_PRECONDITION, 'hello'):
                connection.call(list=pb.ListModels())

    def test_unknown_requirement_is_refused_by_name(self):
        with Connection(daemon.port) as connection:
            with self.assertRefused(UNIMPLEMENTED, 'telepathy'):
                connection.hello('needy', require=['telepathy'])

    def test_observer_may_look_but_not_push(self):
        with Worker('maker') as maker, Connection(daemon.port) as observer:
            maker.create('looked-at', 'sgd(lr=0.25)', [[3]])
            observer.hello('')
            opened = observer.call(open=pb.OpenModel(model='looked-at')).model
            reply = observer.call(pull=pb.Pull(model=opened.model))
            self.assertEqual(from_bytes(reply.data), [0.0] * 3)
            with self.assertRaises(Refused):
                observer.call(push=pb.Push(model=opened.model, sequence=1, last=True,
                                           segments=segments(3)), data=bytes(12))

    def test_heartbeat_is_answered(self):
        with Worker('alive') as worker:
            reply = worker.call(heartbeat=pb.Heartbeat())
            self.assertEqual(body_of(reply), 'heartbeat')

    def test_goodbye_is_answered_and_the_connection_closed(self):
        with Worker('polite') as worker:
            reply = worker.call(goodbye=pb.Goodbye())
            self.assertEqual(body_of(reply), 'goodbye')
            with self.assertRaises(EOFError):
                worker.receive()

    # ------------------------------------------------------------ models

    def test_model_is_created_once_and_then_opened(self):
        with Worker('first') as first, Worker('second') as second:
            made = first.create('shared', 'sgd(lr=0.25)', [[2, 3], []])
            self.assertTrue(made.created and made.ready)
            self.assertEqual((made.step, made.tensors, made.parameters, made.workers),
                             (0, 2, 7, 1))
            found = second.create('shared', 'sgd(lr=0.25)', [[2, 3], []])
            self.assertFalse(found.created)
            self.assertEqual((found.model, found.workers), (made.model, 2))
            with self.assertRefused(ALREADY_EXISTS, '0.5'):
                second.create('shared', 'sgd(lr=0.5)', [[2, 3], []])
            with self.assertRefused(ALREADY_EXISTS):
                second.create('shared', 'sgd(lr=0.25)', [[3, 2], []])

    def test_specification_in_parts_means_the_same_as_an_expression(self):
        table = pb.TensorTable(tensors=[pb.Tensor(name='w', shape=[4])])
        parts = pb.Specification(
            rule='adam',
            options=[pb.Option(name='lr', number=0.002),
                     pb.Option(name='weight_decay', number=0.01),
                     pb.Option(name='decay', word='decoupled'),
                     pb.Option(name='bias_correction', flag=True)])
        whole = pb.Specification(
            expression='adam(lr=2e-3, weight_decay=0.01, decay=decoupled)')
        texts = []
        with Worker('speller') as worker:
            for name, specification in ('in-parts', parts), ('whole', whole):
                texts.append(worker.call(
                    create=pb.CreateModel(model=name, specification=specification),
                    data=table.SerializeToString()).model.specification)
        self.assertEqual(texts[0], texts[1])
        self.assertIn('adam', texts[0])

    def test_message_that_optctl_prints_is_the_specification(self):
        expression = ('torch.rmsprop(momentum=0.9, centered=true) + warmup(5) + '
                      'tensors("a\\"b*", lr_scale=2, layerwise=none, missing=ok)')
        optctl = os.path.join(os.path.dirname(DAEMON), 'optctl')
        forms = json.loads(subprocess.run([optctl, '--json', 'spec', expression],
                                          check=True, capture_output=True).stdout)
        specification = text_format.Parse(forms['message'], pb.Specification())
        table = pb.TensorTable(tensors=[pb.Tensor(name='w', shape=[4])])
        with Worker('reader') as worker:
            reply = worker.call(
                create=pb.CreateModel(model='printed', specification=specification),
                data=table.SerializeToString())
        self.assertEqual(reply.model.specification, forms['expression'])

    def test_wrong_specification_names_the_right_word(self):
        with Worker('typo') as worker:
            with self.assertRefused(INVALID_ARGUMENT, 'adam'):
                worker.create('typo', 'adma(lr=0.1)', [[3]])

    def test_list_and_describe_tell_what_is_there(self):
        weights = [ramp(6), ramp(5)]
        with Worker('describer') as worker:
            worker.create('described', 'adam(lr=0.01)', [[2, 3], [5]], weights)
            worker.push(ramp(11), samples=4)
            models = pb.ModelTable.FromString(worker.call(list=pb.ListModels()).data)
            mine = [m for m in models.models if m.name == 'described']
            self.assertEqual(len(mine), 1)
            self.assertEqual((mine[0].step, mine[0].tensors, mine[0].parameters,
                              mine[0].workers), (1, 2, 11, 1))
            told = pb.ModelDescription.FromString(
                worker.call(describe=pb.DescribeModel(model='described')).data)
            self.assertEqual(told.summary, mine[0])
            self.assertTrue(told.ready)
            self.assertAlmostEqual(told.lr, 0.01)
            self.assertEqual(list(told.slots), ['exp_avg', 'exp_avg_sq'])
            self.assertGreaterEqual(told.bytes, 3 * 11 * 4)
            self.assertLessEqual(told.bytes, 3 * 2 * 64, 'more than lines of 64 bytes')
            self.assertEqual([(t.name, list(t.shape), t.step) for t in told.tensors],
                             [('t0', [2, 3], 1), ('t1', [5], 1)])
            self.assertEqual([(w.name, w.connected, w.applied, w.last_sequence)
                              for w in told.workers], [('describer', True, 1, 1)])

    def test_unknown_model_is_not_found(self):
        with Worker('seeker') as worker:
            with self.assertRefused(NOT_FOUND, 'nowhere'):
                worker.call(open=pb.OpenModel(model='nowhere'))

    def test_left_model_can_be_deleted(self):
        with Worker('leaver') as worker:
            worker.create('left', 'sgd(lr=0.25)', [[3]])
            worker.call(leave=pb.Leave(model=worker.model))
            worker.call(delete=pb.DeleteModel(model='left'))
            with self.assertRefused(NOT_FOUND):
                worker.call(open=pb.OpenModel(model='left'))

    # ------------------------------------------------------------ updates

    def test_sgd_steps_are_exact(self):
        weights, gradient = ramp(70), ramp(70, 0.3)
        with Worker('sgd') as worker:
            worker.create('sgd', 'sgd(lr=0.25)', [[7, 10]], [weights])
            for step in range(1, 6):
                gradient = [fp32(g * 1.1) for g in gradient]
                weights = sgd(weights, gradient, 0.25)
                pushed = worker.push(gradient, basis=step - 1)
                self.assertEqual((pushed.fate, pushed.step, pushed.staleness),
                                 (pb.PushReply.APPLIED, step, 0))
            values, reply = worker.pull()
            self.assertEqual(reply.pull.step, 5)
            self.assertEqual(values, weights)

    def test_adam_steps_agree(self):
        weights, adam = ramp(50), Adam(50, lr=0.01)
        with Worker('adam') as worker:
            worker.create('adam', 'adam(lr=0.01)', [[50]], [weights])
            for step in range(12):
                gradient = [fp32(g * math.cos(step + i))
                            for i, g in enumerate(ramp(50, 0.5))]
                weights = adam.step(weights, gradient)
                worker.push(gradient, basis=step)
            values, _ = worker.pull()
            self.assertClose(values, weights, 2e-6)
            moments, _ = worker.pull(view=pb.SLOT, slot='exp_avg')
            self.assertClose(moments, adam.m)
            squares, _ = worker.pull(view=pb.SLOT, slot='exp_avg_sq')
            self.assertClose(squares, adam.v, 1e-6, 1e-12)
            with self.assertRefused(NOT_FOUND, 'momentum_buffer'):
                worker.pull(view=pb.SLOT, slot='momentum_buffer')

    def test_round_is_the_mean_weighted_by_samples(self):
        weights, one, three = ramp(20), ramp(20), ramp(20, -0.5)
        with Worker('a') as a, Worker('b') as b:
            a.create('round', 'sgd(lr=0.5)', [[20]], [weights])
            b.create('round', 'sgd(lr=0.5)', [[20]])
            waiting = a.send(push=a.push_message(samples=1), data=to_bytes(one))
            pushed = b.push(three, samples=3)
            self.assertEqual(a.answer(waiting).push, pushed)
            mean = [0.25 * x + 0.75 * y for x, y in zip(one, three)]
            self.assertEqual(b.pull()[0], sgd(weights, mean, 0.5))

    def test_sums_count_as_sums(self):
        weights, total = ramp(20), ramp(20, 4.0)
        with Worker('summer') as worker:
            worker.create('sums', 'sgd(lr=0.5)', [[20]], [weights])
            worker.push(total, samples=8, form=pb.Push.SUM)
            self.assertEqual(worker.pull()[0],
                             sgd(weights, [x / 8 for x in total], 0.5))

    def test_asynchronous_push_does_not_wait_for_others(self):
        with Worker('quick') as quick, Worker('slow') as slow:
            policy = pb.Consistency(mode=pb.Consistency.ASYNC)
            quick.create('async', 'sgd(lr=0.25)', [[3]], consistency=policy)
            slow.create('async', 'sgd(lr=0.25)', [[3]], consistency=policy)
            for step in range(1, 4):
                self.assertEqual(quick.push([4.0, 0.0, -4.0]).step, step)
            late = slow.push([0.0, 4.0, 0.0], basis=1)
            self.assertEqual((late.step, late.staleness), (4, 2))
            self.assertEqual(quick.pull()[0], [-3.0, -1.0, 3.0])

    def test_round_may_close_by_samples(self):
        policy = pb.Consistency(samples=10)
        with Worker('many') as many, Worker('few') as few:
            many.create('samples', 'sgd(lr=0.5)', [[2]], consistency=policy)
            few.create('samples', 'sgd(lr=0.5)', [[2]], consistency=policy)
            waiting = many.send(data=to_bytes([1.0, 0.0]),
                                push=many.push_message(samples=6))
            self.assertEqual(few.push([0.0, 2.0], samples=4).step, 1)
            self.assertEqual(many.answer(waiting).push.step, 1)
            step = [6 * 1.0 / 10, 4 * 2.0 / 10]
            self.assertEqual(few.pull()[0], sgd([0.0, 0.0], step, 0.5))
            self.assertEqual(many.push([1.0, 1.0], samples=12, basis=1).step, 2)

    def test_push_for_a_closed_round_is_dropped(self):
        policy = pb.Consistency(backup=1, min_workers=2)
        with Worker('first') as first, Worker('second') as second:
            first.create('backup', 'sgd(lr=1)', [[2]], consistency=policy)
            second.create('backup', 'sgd(lr=1)', [[2]], consistency=policy)
            self.assertEqual(first.push([1.0, 2.0]).fate, pb.PushReply.APPLIED)
            late = second.push([10.0, 10.0])
            self.assertEqual((late.fate, late.reason),
                             (pb.PushReply.DROPPED, 'round 1 closed'))
            self.assertEqual(first.pull()[0], [-1.0, -2.0])

    def test_nobody_gets_too_far_ahead(self):
        policy = pb.Consistency(mode=pb.Consistency.BOUNDED, staleness=2)
        with Worker('fast') as fast, Worker('slow') as slow:
            fast.create('bounded', 'sgd(lr=1)', [[1]], consistency=policy)
            slow.create('bounded', 'sgd(lr=1)', [[1]], consistency=policy)
            fast.push([1.0])
            fast.push([1.0])
            with self.assertRefused(DEADLINE_EXCEEDED, '"slow"'):
                fast.call(timeout_ms=200, data=to_bytes([1.0]),
                          push=fast.push_message())
            waiting = fast.send(data=to_bytes([1.0]), push=fast.push_message())
            self.assertEqual(slow.push([1.0]).fate, pb.PushReply.APPLIED)
            self.assertEqual(fast.answer(waiting).push.fate, pb.PushReply.APPLIED)
            slow.call(rest=pb.Rest(model=slow.model))
            for _ in range(4):
                fast.push([1.0])
            self.assertEqual(fast.pull()[0], [-8.0])

    def test_stale_gradients_are_damped_and_compensated(self):
        policy = pb.Consistency(mode=pb.Consistency.ASYNC, damping=True,
                                delay_compensation=0.5)
        with Worker('stale') as stale, Worker('fresh') as fresh:
            stale.create('stale', 'sgd(lr=1)', [[1]], consistency=policy)
            fresh.create('stale', 'sgd(lr=1)', [[1]], consistency=policy)
            stale.pull()
            fresh.push([8.0])
            # Two from weights that were 0 and are -8: 2 + 0.5 * 2 * 2 * (-8 - 0), halved.
            self.assertEqual(stale.push([2.0]).staleness, 1)
            self.assertEqual(stale.pull()[0], [-8.0 + 7.0])
            about = pb.ModelDescription.FromString(
                stale.call(describe=pb.DescribeModel(model='stale')).data)
            self.assertEqual(about.consistency, pb.Consistency(
                mode=pb.Consistency.ASYNC, min_workers=1, damping=True,
                delay_compensation=0.5))
            self.assertEqual([list(w.staleness) for w in about.workers], [[1], [0, 1]])
            self.assertEqual((about.rounds, about.mean_staleness), (2, 0.5))

    def test_policy_that_cannot_be_is_refused(self):
        with Worker('policy') as worker:
            for policy, said in (
                    (pb.Consistency(mode=pb.Consistency.BOUNDED), 'at least 1'),
                    (pb.Consistency(staleness=3), 'for bounded'),
                    (pb.Consistency(samples=3, backup=1), 'one of them')):
                with self.assertRefused(INVALID_ARGUMENT, said):
                    worker.create('policy', 'sgd(lr=1)', [[1]], consistency=policy)
            with self.assertRefused(INVALID_ARGUMENT, 'the norm of the whole gradient'):
                worker.create('policy', 'sgd(lr=1) + clip(global_norm, 1)', [[1]],
                              consistency=pb.Consistency(atomic=pb.Consistency.SHARD))

    def test_shards_of_a_round_are_applied_as_they_come(self):
        elements = (1 << 20) + 5
        with Worker('one') as one, Worker('two') as two:
            policy = pb.Consistency(atomic=pb.Consistency.SHARD, min_workers=2)
            for worker in one, two:
                worker.create('shards', 'sgd(lr=1)', [[elements]], consistency=policy)
            waiting = one.send(push=one.push_message(), data=to_bytes([1.0] * elements))
            self.assertEqual(two.push([3.0] * elements).fate, pb.PushReply.APPLIED)
            self.assertEqual(one.answer(waiting).push.step, 1)
            self.assertEqual(one.pull()[0], [-2.0] * elements)

    def test_barrier_waits_for_everybody_and_names_the_lost(self):
        with Worker('one') as one, Worker('two') as two:
            one.create('barrier', 'sgd(lr=1)', [[1]])
            two.create('barrier', 'sgd(lr=1)', [[1]])
            waiting = one.send(barrier=pb.Barrier(model=one.model, sequence=1))
            self.assertEqual(
                two.call(barrier=pb.Barrier(model=two.model, sequence=1)).barrier.step, 0)
            one.answer(waiting)
            one.call(barrier=pb.Barrier(model=one.model, sequence=1))  # asked again
            with self.assertRefused(DEADLINE_EXCEEDED, '"two"'):
                one.call(timeout_ms=200,
                         barrier=pb.Barrier(model=one.model, sequence=2))
            with Worker('two', session=8):  # another process: the first one is lost
                passed = one.call(barrier=pb.Barrier(model=one.model, sequence=3))
                self.assertEqual(list(passed.barrier.lost), ['two'])

    def test_push_pull_returns_the_weights_it_made(self):
        weights, gradient = ramp(30), ramp(30, 2.0)
        with Worker('both') as worker:
            worker.create('both', 'sgd(lr=0.25)', [[10], [20]], [weights[:10],
                                                                weights[10:]])
            id = worker.send(data=to_bytes(gradient), push_pull=pb.PushPull(
                push=worker.push_message(), pull=pb.Pull(model=worker.model)))
            values, reply = worker.gather(id, lambda reply: reply.push_pull.pull)
            self.assertEqual(reply.push_pull.push.fate, pb.PushReply.APPLIED)
            self.assertEqual((reply.push_pull.push.step, reply.push_pull.pull.step),
                             (1, 1))
            self.assertEqual(values, sgd(weights, gradient, 0.25))

    def test_push_in_two_frames_has_one_answer(self):
        n = BLOCK + 100
        weights, gradient = ramp(n), ramp(n, 0.5)
        with Worker('frames') as worker:
            worker.create('frames', 'sgd(lr=0.25)', [[n]], [weights])
            whole, rest = pb.Segment(count=BLOCK), pb.Segment(offset=BLOCK, count=100)
            push = worker.push_message(segments=[whole], frame=0, last=False)
            id = worker.send(push=push, data=to_bytes(gradient[:BLOCK]))
            push = pb.Push(model=worker.model, sequence=push.sequence, segments=[rest],
                           frame=1, last=True)
            worker.send(push=push, id=id, data=to_bytes(gradient[BLOCK:]))
            self.assertEqual(worker.answer(id).push.fate, pb.PushReply.APPLIED)
            expected = sgd(weights, gradient, 0.25)
            self.assertEqual(worker.pull()[0], expected)
            tail, reply = worker.pull(segments=[rest])
            self.assertEqual(tail, expected[BLOCK:])
            self.assertEqual(reply.pull.segments[0].offset, BLOCK)

    def test_push_of_one_tensor_leaves_the_other(self):
        with Worker('partial') as worker:
            worker.create('partial', 'sgd(lr=0.25)', [[3], [4]])
            worker.push([4.0] * 4, segments=[pb.Segment(tensor=1, count=4)])
            self.assertEqual(worker.pull()[0], [0.0] * 3 + [-1.0] * 4)

    def test_forms_may_differ_within_a_round(self):
        """Only the weighted mean tells a sum over samples from a mean over them."""
        mean, total = ramp(20), ramp(20, 6.0)
        expected = {
            'weighted_mean': [(2 * x + y) / 8 for x, y in zip(mean, total)],
            'mean': [(x + y) / 2 for x, y in zip(mean, total)],
            'sum': [x + y for x, y in zip(mean, total)],
        }
        for how, aggregate in expected.items():
            with self.subTest(how), Worker('a') as a, Worker('b') as b:
                name, text = f'forms-{how}', f'sgd(lr=1) + aggregate({how})'
                a.create(name, text, [[20]])
                b.create(name, text, [[20]])
                waiting = a.send(push=a.push_message(samples=2), data=to_bytes(mean))
                b.push(total, samples=6, form=pb.Push.SUM)
                self.assertEqual(a.answer(waiting).push.fate, pb.PushReply.APPLIED)
                self.assertClose(b.pull()[0], [-x for x in aggregate])

    # ------------------------------------------------------------ rows

    def test_rows_of_a_table_are_pushed_and_pulled(self):
        width, weights = 3, ramp(30)
        rows = [7, 2, 7]
        values = [float(i + 1) for i in range(len(rows) * width)]
        with Worker('embedder') as worker:
            worker.create('table', 'sgd(lr=0.25)', [[10, width], [2]],
                          [weights, [0.0, 0.0]], sparse={0})
            pushed = worker.push(values, segments=[pb.Segment(rows=rows)])
            self.assertEqual((pushed.fate, pushed.step), (pb.PushReply.APPLIED, 1))
            gradient = [0.0] * 30
            for i, row in enumerate(rows):
                for k in range(width):
                    gradient[row * width + k] += values[i * width + k]
            expected = sgd(weights, gradient, 0.25)
            asked = [9, 7, 2, 7]
            got, reply = worker.pull(segments=[pb.Segment(rows=asked)])
            self.assertEqual(got, [x for row in asked for x in
                                   expected[row * width:(row + 1) * width]])
            self.assertEqual([list(s.rows) for s in reply.pull.segments], [asked])
            self.assertEqual(worker.pull(segments=[pb.Segment(tensor=0)])[0], expected)

    def test_rows_and_a_dense_tensor_make_one_push(self):
        with Worker('mixed') as worker:
            worker.create('mixed', 'sgd(lr=1)', [[4, 2], [3]], sparse={0})
            worker.push([1.0, 2.0, 5.0, 6.0, 7.0],
                        segments=[pb.Segment(rows=[3]), pb.Segment(tensor=1, count=3)])
            self.assertEqual(worker.pull()[0],
                             [0.0] * 6 + [-1.0, -2.0, -5.0, -6.0, -7.0])
            # No rows at all is an update of the table in which nothing moves.
            worker.push([], segments=[pb.Segment(tensor=0)])
            told = pb.ModelDescription.FromString(
                worker.call(describe=pb.DescribeModel(model='mixed')).data)
            self.assertEqual([(t.sparse, t.step) for t in told.tensors],
                             [(True, 2), (False, 1)])

    def test_rows_of_several_workers_are_summed(self):
        with Worker('a') as a, Worker('b') as b:
            a.create('rows-of-two', 'sgd(lr=1) + aggregate(sum)', [[5, 1]], sparse={0})
            b.create('rows-of-two', 'sgd(lr=1) + aggregate(sum)', [[5, 1]], sparse={0})
            waiting = a.send(data=to_bytes([1.0, 2.0]), push=a.push_message(
                segments=[pb.Segment(rows=[0, 4])]))
            b.push([10.0], segments=[pb.Segment(rows=[4])])
            self.assertEqual(a.answer(waiting).push.fate, pb.PushReply.APPLIED)
            self.assertEqual(b.pull()[0], [-1.0, 0.0, 0.0, 0.0, -12.0])

    def test_sixteen_bit_rows_travel_both_ways(self):
        for dtype, name in (pb.BF16, 'rows-bf16'), (pb.FP16, 'rows-fp16'):
            with self.subTest(name), Worker(name) as worker:
                worker.create(name, 'sgd(lr=0.5)', [[6, 4]], sparse={0})
                worker.push(ramp(8), dtype, segments=[pb.Segment(rows=[1, 5])])
                got, reply = worker.pull(dtype=dtype,
                                         segments=[pb.Segment(rows=[5, 1])])
                self.assertEqual(reply.pull.dtype, dtype)
                expected = [-0.5 * x for x in ramp(8)]
                self.assertEqual(got, expected[4:] + expected[:4])

    def test_wrong_rows_are_refused_by_name(self):
        with Worker('wrong-rows') as worker:
            worker.create('wrong-rows', 'sgd(lr=1)', [[4, 2], [3]], sparse={0})
            with self.assertRefused(INVALID_ARGUMENT, 'row 4', 't0', '0 to 3'):
                worker.push([1.0] * 4, segments=[pb.Segment(rows=[3, 4])])
            with self.assertRefused(INVALID_ARGUMENT, 't1', 'not sparse'):
                worker.push([1.0] * 3, segments=[pb.Segment(tensor=1, rows=[0])])
            with self.assertRefused(INVALID_ARGUMENT, 't0', 'names elements'):
                worker.push([1.0] * 8, segments=[pb.Segment(count=8)])
            with self.assertRefused(INVALID_ARGUMENT, 'offset and count must be 0'):
                worker.push([1.0] * 2, segments=[pb.Segment(rows=[1], count=2)])
            with self.assertRefused(INVALID_ARGUMENT, '8 bytes', '12'):
                worker.push([1.0] * 3, segments=[pb.Segment(rows=[1])])
            with self.assertRefused(INVALID_ARGUMENT, 't0', 'element 3'):
                worker.push([1.0, math.nan], segments=[pb.Segment(rows=[1])])
            with self.assertRefused(INVALID_ARGUMENT, 'row 9'):
                worker.pull(segments=[pb.Segment(rows=[9])])
            values, reply = worker.pull()
            self.assertEqual((values, reply.pull.step), ([0.0] * 11, 0))

    def test_table_needs_a_rule_that_can_leave_rows_alone(self):
        with Worker('lazy') as worker:
            for text, word in (('nag', 'nag'), ('adam + lookahead(6)', 'lookahead'),
                               ('lamb', 'layerwise')):
                with self.assertRefused(INVALID_ARGUMENT, word):
                    worker.create('lazy', text, [[4, 2]], sparse={0})

    # ------------------------------------------------------------ groups of tensors

    def test_groups_have_options_of_their_own(self):
        """The bias has no decay and no trust ratio: plain sgd beside LARS-like sgd."""
        text = ('sgd(lr=0.5) + decay(0.25) + layerwise(update) + '
                'tensors("*.bias", weight_decay=0, layerwise=none) + '
                'tensors("norm?", lr_scale=2, layerwise=none)')
        names = ['fc.weight', 'fc.bias', 'norm1']
        w, b, n = ramp(12), ramp(3), ramp(4, 2.0)
        with Worker('groups') as worker:
            worker.create('groups', text, [[3, 4], [3], [4]], [w, b, n], names)
            for step in range(1, 5):
                g = [fp32(x * math.cos(step + i)) for i, x in enumerate(ramp(19, 0.5))]
                worker.push(g, basis=step - 1)
                u = [x + 0.25 * y for x, y in zip(g[:12], w)]
                trust = (math.sqrt(sum(x * x for x in w))
                         / math.sqrt(sum(x * x for x in u)))
                w = [x - 0.5 * trust * y for x, y in zip(w, u)]
                b = [x - 0.5 * y for x, y in zip(b, g[12:15])]
                n = [x - y - 0.25 * x for x, y in zip(n, g[15:])]
            self.assertClose(worker.pull()[0], w + b + n, 1e-5, 1e-6)

    def test_first_group_that_matches_wins(self):
        text = ('sgd(lr=1) + tensors("a*", lr_scale=0.5) + tensors("*b", lr_scale=0.25)')
        with Worker('first-match') as worker:
            worker.create('first-match', text, [[1]] * 4, names=['ab', 'xb', 'a', 'x'])
            worker.push([8.0] * 4)
            self.assertEqual(worker.pull()[0], [-4.0, -2.0, -4.0, -8.0])

    # ------------------------------------------------------------ changes

    def test_change_takes_effect_at_its_update(self):
        with Worker('changer') as worker:
            worker.create('changer', 'sgd(lr=1)', [[2], [3]])
            stated = worker.call(set=pb.SetOptions(
                model='changer', change='lr=0.5', at_step=3)).set
            self.assertEqual(stated.step, 3)
            self.assertIn('0.5', stated.specification)
            expected = 0.0
            for step in range(1, 5):
                worker.push([4.0] * 5)
                expected -= 4.0 if step < 3 else 2.0
                self.assertEqual(worker.pull()[0], [expected] * 5)
            with self.assertRefused(FAILED_PRECONDITION, 'update 3'):
                worker.call(set=pb.SetOptions(model='changer', change='lr=2',
                                              at_step=3))
            with self.assertRefused(FAILED_PRECONDITION, 'slow_param'):
                worker.call(set=pb.SetOptions(model='changer', change='lookahead_k=5'))
            told = pb.ModelDescription.FromString(
                worker.call(describe=pb.DescribeModel(model='changer')).data)
            self.assertEqual([(c.step, c.before, c.after) for c in told.changes],
                             [(3, 'sgd(lr=1)', 'sgd(lr=0.5)')])

    def test_change_that_a_table_cannot_follow_is_refused(self):
        with Worker('table-changer') as worker:
            worker.create('table-changer', 'adam', [[4, 2]], sparse={0})
            for change in 'layerwise()', 'lookahead_k=5':
                with self.assertRaises(Refused) as refused:
                    worker.call(set=pb.SetOptions(model='table-changer', change=change))
                self.assertIn(refused.exception.code,
                              (INVALID_ARGUMENT, FAILED_PRECONDITION))
            told = pb.ModelDescription.FromString(
                worker.call(describe=pb.DescribeModel(model='table-changer')).data)
            self.assertEqual(len(told.changes), 0)

    # ------------------------------------------------------------ large answers

    def test_who_says_to_have_a_step_of_the_future_gets_all(self):
        """It may be of a model that was lost and created anew under the same name."""
        with Worker('since') as worker:
            worker.create('since', 'sgd(lr=1)', [[64]], [ramp(64)])
            for since in (1, 2 ** 63, 2 ** 64 - 1):
                values, reply = worker.pull(since=since)
                self.assertEqual(values, ramp(64))
                self.assertEqual(len(reply.pull.unchanged), 0)

    def test_large_pull_comes_in_frames_of_one_step(self):
        n = 3 * (1 << 20) + 5
        with Worker('large') as worker:
            worker.create('large', 'sgd(lr=1)', [[n]])
            id = worker.send(pull=pb.Pull(model=worker.model))
            at, frames, last = 0, 0, False
            while not last:
                reply = worker.answer(id)
                for segment in reply.pull.segments:
                    self.assertEqual((segment.tensor, segment.offset), (0, at))
                    at += segment.count
                self.assertEqual(len(reply.data),
                                 4 * sum(s.count for s in reply.pull.segments))
                self.assertLessEqual(len(reply.data), worker.greeting.max_frame_bytes)
                self.assertEqual(reply.pull.step, 0)
                frames, last = frames + 1, reply.pull.last
            self.assertEqual(at, n)
            self.assertGreater(frames, 1)

    def test_sixteen_bit_values_travel_both_ways(self):
        for dtype, name in (pb.BF16, 'bf16'), (pb.FP16, 'fp16'):
            with self.subTest(name), Worker(name) as worker:
                weights, gradient = ramp(40), ramp(40, 0.25)
                worker.create(name, 'sgd(lr=0.125)', [[40]], [weights])
                worker.push(gradient, dtype)
                expected = sgd(weights, gradient, 0.125)
                self.assertEqual(worker.pull()[0], expected)
                values, reply = worker.pull(dtype=dtype)
                self.assertEqual(reply.pull.dtype, dtype)
                self.assertEqual(values, from_bytes(to_bytes(expected, dtype), dtype))

    # ------------------------------------------------------------ refusals

    def test_resent_push_is_a_duplicate(self):
        with Worker('again') as worker:
            worker.create('again', 'sgd(lr=0.25)', [[3]])
            self.assertEqual(worker.push([4.0] * 3).fate, pb.PushReply.APPLIED)
            resent = worker.push([4.0] * 3, sequence=1)
            self.assertEqual((resent.fate, resent.step), (pb.PushReply.DUPLICATE, 1))
            self.assertEqual(worker.pull()[0], [-1.0] * 3)

    def test_nonfinite_gradient_changes_nothing(self):
        with Worker('nan') as worker:
            worker.create('nan', 'sgd(lr=0.25)', [[2], [3]])
            for bad in math.nan, math.inf, -math.inf:
                with self.assertRefused(INVALID_ARGUMENT, 't1'):
                    worker.push([1.0, 1.0, 1.0, bad, 1.0])
            values, reply = worker.pull()
            self.assertEqual((values, reply.pull.step), ([0.0] * 5, 0))

    def test_values_that_do_not_fit_are_refused_and_the_connection_lives(self):
        with Worker('unfit') as worker:
            worker.create('unfit', 'sgd(lr=0.25)', [[3]])
            with self.assertRefused(INVALID_ARGUMENT):
                worker.push([1.0] * 2)
            with self.assertRefused(INVALID_ARGUMENT):
                worker.push([1.0] * 4)
            with self.assertRaises(Refused):
                worker.push([1.0], segments=[pb.Segment(tensor=5, count=1)])
            self.assertEqual(worker.push([4.0] * 3).fate, pb.PushReply.APPLIED)

    def test_no_memory_is_shared_over_tcp_and_the_connection_lives(self):
        with Worker('apart') as worker:
            worker.create('apart', 'sgd(lr=0.25)', [[3]])
            with self.assertRefused(FAILED_PRECONDITION, 'Unix socket'):
                worker.call(share=pb.Share(model=worker.model))
            with self.assertRefused(FAILED_PRECONDITION, 'shares no memory'):
                worker.call(push=worker.push_message(places=[0]))
            with self.assertRefused(FAILED_PRECONDITION, 'shares no memory'):
                worker.call(push_pull=pb.PushPull(push=worker.push_message(places=[64]),
                                                  pull=pb.Pull(model=worker.model)))
            values, reply = worker.pull(shared=True)
            self.assertEqual((values, list(reply.pull.places)), ([0.0] * 3, []))
            self.assertEqual(worker.push([4.0] * 3).fate, pb.PushReply.APPLIED)
            worker.call(heartbeat=pb.Heartbeat(), released=[1, 1, 2 ** 64 - 1])
            self.assertEqual(worker.pull()[0], [-1.0] * 3)

    def test_part_of_a_push_by_place_over_tcp_ends_the_connection(self):
        """The rest of it could not be told from another push."""
        with Worker('apart-part') as worker:
            worker.create('apart-part', 'sgd(lr=0.25)', [[3]])
            with self.assertRefused(FAILED_PRECONDITION, 'shares no memory'):
                worker.call(push=worker.push_message(places=[0], last=False))
            with self.assertRaises((EOFError, ConnectionResetError)):
                worker.receive()
        with Worker('apart-part') as again:
            again.create('apart-part', 'sgd(lr=0.25)', [[3]])
            self.assertEqual(again.pull()[0], [0.0] * 3)

    def test_places_that_do_not_fit_segments_are_refused(self):
        with Worker('misplaced') as worker:
            worker.create('misplaced', 'sgd(lr=0.25)', [[3]])
            for places, data, words in (([0, 64], b'', '2 places'),
                                        ([32], b'', 'multiple of 64'),
                                        ([0], bytes(12), '12 bytes came')):
                with self.assertRefused(INVALID_ARGUMENT, words):
                    worker.call(push=worker.push_message(places=places), data=data)
            with self.assertRefused(INVALID_ARGUMENT, 'at most 64'):
                worker.call(heartbeat=pb.Heartbeat(), released=range(1, 66))
            self.assertEqual(worker.push([4.0] * 3).fate, pb.PushReply.APPLIED)

    def test_waiting_ends_at_the_deadline_and_names_who_is_missing(self):
        with Worker('here') as here, Worker('missing') as missing:
            here.create('deadline', 'sgd(lr=0.25)', [[3]])
            missing.create('deadline', 'sgd(lr=0.25)', [[3]])
            with self.assertRefused(DEADLINE_EXCEEDED, 'missing'):
                here.call(timeout_ms=200, data=to_bytes([1.0] * 3),
                          push=here.push_message())
            with self.assertRefused(DEADLINE_EXCEEDED):
                here.call(wait=pb.Wait(model=here.model, step=1), timeout_ms=200)
            self.assertEqual(here.pull()[0], [0.0] * 3)

    def test_wait_ends_with_the_step(self):
        with Worker('pusher') as pusher, Connection(daemon.port) as watcher:
            pusher.create('waited', 'sgd(lr=0.25)', [[3]])
            watcher.hello('')
            model = watcher.call(open=pb.OpenModel(model='waited')).model.model
            waiting = watcher.send(wait=pb.Wait(model=model, step=2))
            pulling = watcher.send(pull=pb.Pull(model=model, min_step=2))
            pusher.push([4.0] * 3)
            pusher.push([4.0] * 3)
            replies = {reply.id: reply for reply in (watcher.receive(),
                                                     watcher.receive())}
            self.assertEqual(replies[waiting].wait.step, 2)
            self.assertEqual(from_bytes(replies[pulling].data), [-2.0] * 3)

    def test_statistics_count(self):
        with Worker('counter') as worker:
            worker.create('counted', 'sgd(lr=0.25)', [[3]])
            before = self.counters(worker)
            worker.push([1.0] * 3)
            after = self.counters(worker)
            self.assertEqual(before.keys(), after.keys())
            self.assertTrue(any(after[name] > before[name] for name in after))

    def counters(self, worker):
        reply = worker.call(statistics=pb.Statistics()).statistics
        counters = {c.name: c.value for c in reply.counters}
        self.assertEqual(len(counters), len(reply.counters), 'a name twice')
        self.assertGreater(len(counters), 0)
        return counters

    # ------------------------------------------------------------ bytes by hand

    def push_by_hand(self, worker, values):
        """The fields of a push request, each as bytes."""
        worker.sequence += 1
        segment = wire.number_field(3, len(values)) + wire.number_field(1, 0)
        push = (wire.number_field(9, 1) + wire.bytes_field(7, segment)
                + wire.number_field(2, worker.sequence)
                + wire.number_field(1, worker.model))
        return {'id': wire.number_field(1, 77), 'push': wire.bytes_field(16, push),
                'data': wire.bytes_field(wire.DATA_FIELD, to_bytes(values))}

    def check_by_hand(self, name, assemble):
        weights, gradient = ramp(2000), ramp(2000, 0.5)
        with Worker(name) as worker:
            worker.create(name, 'sgd(lr=0.25)', [[2000]], [weights])
            message = assemble(self.push_by_hand(worker, gradient))
            worker.socket.sendall(wire.frame(message))
            self.assertEqual(worker.answer(77).push.fate, pb.PushReply.APPLIED)
            self.assertEqual(worker.pull()[0], sgd(weights, gradient, 0.25))

    def test_fields_in_their_order_by_hand(self):
        self.check_by_hand('in-order', lambda f: f['id'] + f['push'] + f['data'])

    def test_data_may_come_first(self):
        self.check_by_hand('data-first', lambda f: f['data'] + f['push'] + f['id'])

    def test_data_may_come_in_the_middle(self):
        self.check_by_hand('data-middle', lambda f: f['push'] + f['data'] + f['id'])

    def test_unknown_fields_are_ignored(self):
        unknown = (wire.number_field(900, 1 << 40) + wire.fixed64_field(901, 5)
                   + wire.bytes_field(902, b'from a later version'))
        self.check_by_hand('unknown-fields',
                           lambda f: f['id'] + f['push'] + unknown + f['data'])

    def test_bytes_may_arrive_one_at_a_time(self):
        with Worker('dribble') as worker:
            worker.create('dribble', 'sgd(lr=0.25)', [[8]])
            fields = self.push_by_hand(worker, [4.0] * 8)
            for byte in wire.frame(fields['id'] + fields['push'] + fields['data']):
                worker.socket.sendall(bytes([byte]))
            self.assertEqual(worker.answer(77).push.fate, pb.PushReply.APPLIED)
            self.assertEqual(worker.pull()[0], [-1.0] * 8)

    def test_many_requests_may_share_a_segment(self):
        with Worker('pipeline') as worker:
            worker.create('pipeline', 'sgd(lr=0.25)', [[4]])
            together, ids = b'', []
            for _ in range(100):
                ids.append(worker.new_id())
                together += wire.frame(pb.Request(
                    id=ids[-1], push=worker.push_message(),
                    data=to_bytes([4.0] * 4)).SerializeToString())
            worker.socket.sendall(together)
            steps = {}
            for _ in ids:
                reply = worker.receive()
                steps[reply.id] = reply.push.step
            self.assertEqual(steps, {id: i + 1 for i, id in enumerate(ids)})
            self.assertEqual(worker.pull()[0], [-100.0] * 4)

    def test_what_plain_libraries_write_is_served(self):
        """The same conversation, recorded from the libraries of several languages."""
        for path in sorted(glob.glob('tests/wire_recordings/*.bin')):
            fresh = Daemon(DAEMON)
            with self.subTest(path), open(path, 'rb') as file, \
                    Connection(fresh.port) as peer:
                peer.socket.sendall(file.read())
                replies = {reply.id: reply for reply in (peer.receive() for _ in range(6))}
                self.assertEqual([body_of(replies[id + 1]) for id in range(6)],
                                 ['hello', 'model', 'push', 'push_pull', 'pull', 'goodbye'])
                self.assertEqual(replies[3].push.fate, pb.PushReply.APPLIED)
                self.assertEqual(from_bytes(replies[5].data), [-1.0, -2.0, 4.0, -8.0])
            self.assertEqual(fresh.stop(), 0)

    def test_broken_message_is_answered_and_the_connection_closed(self):
        with Worker('broken') as worker:
            worker.socket.sendall(wire.frame(b'\xff' * 40))
            reply = worker.receive()
            self.assertEqual((reply.id, body_of(reply)), (0, 'error'))
            with self.assertRaises((EOFError, ConnectionResetError)):
                worker.receive()
        with Worker('unbroken') as worker:
            worker.call(heartbeat=pb.Heartbeat())


def main():
    if not os.access(DAEMON, os.X_OK):
        print(f'usage: {sys.argv[0]} DAEMON', file=sys.stderr)
        return 64
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(OtherLanguage)
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2)
    result = runner.run(unittest.TestSuite([suite]))
    failed = {str(getattr(test, 'test_case', test))
              for test, _ in result.failures + result.errors}
    passed = max(result.testsRun - len(failed), 0)
    print(f'{passed} passed, {len(failed)} failed')
    return 0 if passed and not failed else 1


if __name__ == '__main__':
    sys.exit(main())
