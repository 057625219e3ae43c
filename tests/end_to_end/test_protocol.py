#!/usr/bin/python3
"""What docs/protocol.md and proto/optimd.proto promise, against a real daemon.

    test_protocol.py DAEMON          the last line counts the tests
    test_protocol.py DAEMON --write  writes the daemon's answers into the document

Every ```client block of the document is sent, in order, over one connection; what comes
back must be the ```daemon block behind it. A line is bytes in hex, and words behind a #.
"""
import glob
import itertools
import os
import re
import socket
import sys
import unittest

DAEMON = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else ''
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)),
                os.path.join(os.path.dirname(DAEMON), 'python')]

import optimd_pb2 as pb  # noqa: E402
import wire_by_hand as wire  # noqa: E402
from google.protobuf import text_format  # noqa: E402
from google.protobuf.descriptor import FieldDescriptor as Field  # noqa: E402
from test_python import (  # noqa: E402, F401 (setUpModule and tearDownModule are used)
    Daemon, Worker, daemon_port, segments, setUpModule, tearDownModule)
from wire_by_hand import Connection, body_of, from_bytes, to_bytes  # noqa: E402

INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, OUT_OF_RANGE, INTERNAL, \
    DATA_LOSS = 3, 4, 8, 11, 13, 15
MIB = 1 << 20

DOCUMENT = 'docs/protocol.md'
BLOCK = re.compile(r'```(client|daemon)\n(.*?)```\n', re.S)


def bytes_of(block):
    return bytes.fromhex(' '.join(line.split('#')[0] for line in block.splitlines()))


def annotated(reply):
    """A frame as the document prints it: 16 bytes a line, and what they say."""
    said = text_format.MessageToString(pb.Reply.FromString(reply[4:]))
    lines = [reply[i:i + 16].hex(' ') for i in range(0, len(reply), 16)]
    words = [f'# {line}' for line in said.splitlines()]
    room = max(len(lines), len(words))
    return ''.join(f'{line:48}{word}'.rstrip() + '\n' for line, word in zip(
        lines + [''] * (room - len(lines)), words + [''] * (room - len(words))))


def without_version(frame):
    """What may differ between one daemon and the next."""
    reply = pb.Reply.FromString(frame[4:])
    if reply.HasField('hello'):
        reply.hello.server = ''
    if reply.HasField('model'):
        reply.model.identity = 0
    return reply


def replay(document):
    """Yields each printed answer, and the frame that came."""
    daemon = Daemon(DAEMON)
    try:
        with wire.Connection(daemon.port) as peer:
            for kind, block in BLOCK.findall(document):
                if kind == 'client':
                    peer.socket.sendall(bytes_of(block))
                else:
                    size = peer.receive_exactly(4)
                    yield block, size + peer.receive_exactly(
                        int.from_bytes(size, 'little'))
    finally:
        daemon.stop()


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


class Protocol(unittest.TestCase):
    def test_examples_of_the_document_are_what_is_sent(self):
        count = 0
        for block, came in replay(read(DOCUMENT)):
            self.assertEqual(without_version(bytes_of(block)), without_version(came),
                             f'{DOCUMENT} has another answer (--write mends it)')
            count += 1
        self.assertGreaterEqual(count, 7)

    def test_tests_that_the_document_names_are_there(self):
        named = re.findall(r'`(\w+)`', ' '.join(
            re.findall(r'^\|.*\| (.*) \|$', read(DOCUMENT).split('| sentence | test |')[1],
                       re.M)))
        tests = ''.join(map(read, glob.glob('tests/**/test_*', recursive=True)))
        for name in named:
            if '_' in name and not os.path.exists(f'tests/checks/{name}'):
                self.assertRegex(tests, rf'\b{name}\b[):]|def {name}\(')

    def test_features_stand_in_the_document_the_protocol_and_the_manual(self):
        daemon = Daemon(DAEMON)
        with wire.Connection(daemon.port) as peer:
            features = list(peer.hello('w').features)
        daemon.stop()
        document = re.findall(r'^\| `(\w+)` \| ([^|]*) \|$',
                              read(DOCUMENT).split('## Create')[0], re.M)
        comment = read('proto/optimd.proto').split('// What Hello.require may name:')[1]
        comment = comment.split('repeated string features')[0]
        proto = re.findall(r'^  //   (\w+) +(.*)$', comment, re.M)
        self.assertEqual(features, [name for name, _ in document])
        manual = read('server/optimd.8').split('.Ss What clients may require')[1]
        manual = re.findall(r'^\.It Cm (\w+)\n(.*)$', manual.split('.El')[0], re.M)
        document = [(name, words.replace('`', '')) for name, words in document]
        self.assertEqual(document, proto)
        self.assertEqual(document, manual)


class Sentences(unittest.TestCase):
    """What the comments of optimd.proto say and no other test holds them to."""

    def refused(self, code, peer, id, lives):
        """The next reply is this Error; then the connection lives or is closed."""
        reply = peer.receive()
        self.assertEqual((reply.id, reply.error.code), (id, code), reply)
        if lives:
            peer.call(heartbeat=pb.Heartbeat())
        else:
            with self.assertRaises((EOFError, ConnectionResetError)):
                peer.receive()

    # ------------------------------------------------------------ hello

    def test_lease_is_at_least_100_ms_and_at_most_an_hour(self):
        for wanted, granted in (1, 100), (100, 100), (7000, 7000), (10 ** 9, 3600000):
            with Connection(daemon_port()) as peer:
                reply = peer.hello('lease', lease_ms=wanted)
                self.assertEqual(reply.lease_ms, granted)
                self.assertLessEqual(reply.heartbeat_ms * 3, granted)

    def test_incarnation_that_cannot_be_counted_on_is_refused(self):
        with Connection(daemon_port()) as peer:
            for wrong in (1 << 64) - 1, 1 << 63:
                id = peer.send(hello=pb.Hello(protocol=1, worker='far', session=1,
                                              incarnation=wrong))
                reply = peer.receive()
                self.assertEqual((reply.id, reply.error.code), (id, INVALID_ARGUMENT))
            far = peer.hello('far', incarnation=(1 << 63) - 1)
            self.assertEqual(far.incarnation, 1 << 63)

    def test_client_is_not_sent_longer_frames_than_it_takes(self):
        with Worker('long', session=8) as worker:
            worker.create('long names', 'sgd(lr=1)', [[1]] * 30000,
                          names=[f'{"n" * 190}{i}' for i in range(30000)])
            whole = worker.call(describe=pb.DescribeModel(model='long names'))
            self.assertGreater(len(whole.data), 5 * MIB)
        with Connection(daemon_port()) as peer:
            id = peer.send(hello=pb.Hello(protocol=1, worker='', session=1,
                                          max_frame_bytes=5 * MIB - 1))
            self.assertEqual(peer.receive().error.code, INVALID_ARGUMENT)
            peer.hello('', max_frame_bytes=5 * MIB)
            id = peer.send(describe=pb.DescribeModel(model='long names'))
            self.refused(RESOURCE_EXHAUSTED, peer, id, lives=True)

    def test_who_waits_is_silent_too(self):
        with Worker('waiter', lease_ms=100) as worker:
            worker.create('waited for', 'sgd(lr=1)', [[4]])
            worker.send(wait=pb.Wait(model=worker.model, step=5))
            self.refused(DEADLINE_EXCEEDED, worker, 0, lives=False)

    # ------------------------------------------------------------ frames and errors

    def test_without_an_id_the_connection_is_closed(self):
        with Worker('nameless') as peer:
            peer.socket.sendall(wire.frame(wire.bytes_field(22, b'')))
            self.refused(INVALID_ARGUMENT, peer, 0, lives=False)

    def test_what_is_wrong_inside_has_its_id_and_the_connection_lives(self):
        bad_text = wire.bytes_field(12, wire.bytes_field(1, b'\xff'))
        bad_nested = wire.bytes_field(12, b'\x0a\x7f')
        control = wire.bytes_field(12, wire.bytes_field(1, b'a\nb'))
        two_bodies = wire.bytes_field(22, b'') + wire.bytes_field(14, b'')
        twice = wire.bytes_field(11, 2 * wire.bytes_field(3, b''))
        long_number = wire.bytes_field(19, wire.number_field(1, 1 << 32))
        with Worker('inside') as peer:
            for body in bad_text, bad_nested, control, two_bodies, twice, long_number:
                id = peer.new_id()
                peer.socket.sendall(wire.frame(wire.number_field(1, id) + body))
                self.refused(INVALID_ARGUMENT, peer, id, lives=True)

    def test_groups_and_data_that_comes_twice_are_refused(self):
        data = wire.bytes_field(2047, b'1234')
        for tail in b'\x9b\x06\x9c\x06', data + data:
            with Worker('strict') as peer:
                peer.socket.sendall(wire.frame(
                    wire.number_field(1, peer.new_id()) + tail + wire.bytes_field(14, b'')))
                self.refused(INVALID_ARGUMENT, peer, 0, lives=False)

    def test_sum_without_data_only_asks_for_one(self):
        with Worker('sums') as worker:
            worker.create('summed', 'sgd(lr=1)', [[4]])
            for sum_, given in (5, True), (0, False):
                id = worker.new_id()
                worker.socket.sendall(wire.frame(pb.Request(
                    id=id, xxh3=sum_, pull=pb.Pull(model=worker.model)
                ).SerializeToString()))
                self.assertEqual(worker.answer(id).xxh3 != 0, given)

    def test_wrong_sum_in_one_of_several_frames_closes_the_connection(self):
        with Worker('damaged') as worker:
            worker.create('damaged', 'sgd(lr=1)', [[4]])
            for last in True, False:
                id = worker.new_id()
                worker.socket.sendall(wire.frame(pb.Request(
                    id=id, xxh3=5, push=worker.push_message(last=last),
                    data=to_bytes([1.0] * 4)).SerializeToString()))
                self.refused(DATA_LOSS, worker, id, lives=last)

    def detail(self, peer, detail, data=b'', **body):
        id = peer.send(data, **body)
        reply = peer.receive()
        self.assertEqual((reply.id, reply.error.detail), (id, detail), reply)

    def test_details_say_why_without_words(self):
        e = pb.Error
        hello = pb.Hello(protocol=1, worker='w', session=1)
        table = pb.TensorTable(tensors=[pb.Tensor(name='t', shape=[1])])
        create = pb.CreateModel(model='why', specification=pb.Specification(
            expression='adam(lr=1)'))
        with Connection(daemon_port()) as peer:
            self.detail(peer, e.NO_HELLO, heartbeat=pb.Heartbeat())
            for more in {'require': ['magic']}, {'protocol': 2}:
                wanted = pb.Hello(protocol=1, worker='w', session=1)
                wanted.MergeFrom(pb.Hello(**more))
                self.detail(peer, e.NO_FEATURE, hello=wanted)
        with Worker('a') as a, Worker('b') as b, Worker('') as observer:
            self.detail(a, e.SECOND_HELLO, hello=hello)
        with Worker('a') as a, Worker('b') as b, Worker('') as observer:
            b.create('why', 'sgd(lr=1)', [[1]])
            self.detail(a, e.OTHER_DEFINITION, table.SerializeToString(), create=create)
            self.detail(a, e.IN_USE, delete=pb.DeleteModel(model='why'))
            self.detail(a, e.NO_MODEL, open=pb.OpenModel(model='what'))
            self.detail(a, e.NO_MODEL, pull=pb.Pull(model=10 ** 6))
            self.detail(a, e.NO_SERVICE, share=pb.Share(model=b.model))
            self.detail(a, e.MALFORMED, open=pb.OpenModel())
            self.detail(observer, e.OBSERVER, rest=pb.Rest(model=b.model))
            self.detail(observer, e.OBSERVER, open=pb.OpenModel(model='why', join=True))
            Worker('b', session=8).close()
            self.detail(b, e.TAKEN_OVER, heartbeat=pb.Heartbeat())
        with Worker('a') as a, Worker('b') as b, Worker('') as observer:
            for worker in a, b:
                worker.create('details', 'sgd(lr=1)', [[1]])
            self.detail(a, e.UNFIT, wait=pb.Wait(model=a.model, epoch=1))
            self.detail(a, e.NO_TENSOR, pull=pb.Pull(model=a.model, view=pb.SLOT, slot='m'))
            self.detail(a, e.PASSED, to_bytes([1]), assign=pb.Assign(
                model=a.model, last=True, segments=segments(1)))
            a.sequence = 0
            place = a.push_message(places=[0])
            self.detail(a, e.NOT_SHARED, push=place)
            for peer, body in (a, {'wait': pb.Wait(model=a.model, step=1)}), \
                    (a, {'barrier': pb.Barrier(model=a.model, sequence=1)}):
                id = peer.send(timeout_ms=1, **body)
                reply = peer.receive()
                self.assertEqual((reply.id, reply.error.detail), (id, e.NO_PEER), reply)
            first = a.send(barrier=pb.Barrier(model=a.model, sequence=2))
            self.detail(a, e.AT_BARRIER, barrier=pb.Barrier(model=a.model, sequence=3))
            a.send(barrier=pb.Barrier(model=a.model, sequence=2))
            reply = a.receive()
            self.assertEqual((reply.id, reply.error.detail), (first, e.REPLACED), reply)
            b.call(leave=pb.Leave(model=b.model))
            a.receive()  # the barrier, which nobody else is to come to any more
            self.detail(b, e.NOT_JOINED, rest=pb.Rest(model=b.model))
            self.detail(b, e.NOT_JOINED, barrier=pb.Barrier(model=b.model, sequence=1))
            a.call(set=pb.SetOptions(model='details', change='lr=0.5', at_step=2))
            a.sequence = 0
            for _ in range(2):
                a.push([0.0])
            self.detail(a, e.PASSED, set=pb.SetOptions(model='details', change='lr=0.25',
                                                       at_step=2))
            a.send(create=pb.CreateModel(
                model='unmade', specification=pb.Specification(expression='sgd(lr=1)'),
                initial=pb.CreateModel.ASSIGNED), data=table.SerializeToString())
            unmade = a.receive().model.model
            id = b.send(timeout_ms=1, pull=pb.Pull(model=unmade))
            reply = b.receive()
            self.assertEqual((reply.id, reply.error.detail), (id, e.NOT_READY), reply)
            self.detail(b, e.NOT_CREATOR, to_bytes([1]), assign=pb.Assign(
                model=unmade, last=True, segments=segments(1)))
        with Worker('slow', lease_ms=100) as slow:
            reply = slow.receive()
            self.assertEqual((reply.id, reply.error.detail), (0, e.SILENT))
        for odd, why in (wire.frame(b'\xff' * 40), e.MALFORMED), (b'\xff' * 4, e.TOO_LARGE):
            with Worker('odd') as peer:
                peer.socket.sendall(odd)
                self.assertEqual(peer.receive().error.detail, why)

    def test_number_that_was_passed_over_is_refused(self):
        with Worker('passed') as worker:
            worker.create('passed over', 'sgd(lr=1)', [[1]])
            for number, fate in (5, pb.PushReply.APPLIED), (5, pb.PushReply.DUPLICATE):
                worker.sequence = number - 1
                self.assertEqual(worker.push([1.0]).fate, fate)
            worker.sequence = 2
            id = worker.send(push=worker.push_message(), data=to_bytes([1.0]))
            self.refused(INVALID_ARGUMENT, worker, id, lives=True)
            self.assertEqual(worker.pull()[0], [-1.0])

    # ------------------------------------------------------------ rounds and barriers

    def test_who_rests_is_not_waited_for_until_its_next_push(self):
        with Worker('a') as a, Worker('b') as b:
            for worker in a, b:
                worker.create('resting', 'sgd(lr=1)', [[1]])
            b.call(rest=pb.Rest(model=b.model))
            self.assertEqual(a.push([1.0]).step, 1)
            id = b.send(push=b.push_message(), data=to_bytes([1.0]))
            b.call(heartbeat=pb.Heartbeat())
            self.assertEqual(a.push([1.0]).step, 2)
            self.assertEqual(b.answer(id).push.step, 2)

    def test_barrier_that_was_passed_is_answered_at_once(self):
        with Worker('a') as a, Worker('b') as b:
            a.create('passed twice', 'sgd(lr=1)', [[1]])
            a.call(barrier=pb.Barrier(model=a.model, sequence=1))
            b.create('passed twice', 'sgd(lr=1)', [[1]])
            a.call(barrier=pb.Barrier(model=a.model, sequence=1))
            id = a.send(timeout_ms=1, barrier=pb.Barrier(model=a.model, sequence=2))
            reply = a.receive()
            self.assertEqual((reply.id, reply.error.code), (id, DEADLINE_EXCEEDED))
            self.assertIn('b', reply.error.message)

    def test_half_closed_connection_is_closed(self):
        with Worker('whole') as whole, Worker('half') as half:
            whole.create('halves', 'sgd(lr=1)', [[1]])
            half.create('halves', 'sgd(lr=1)', [[1]])
            half.send(barrier=pb.Barrier(model=half.model, sequence=1))
            half.call(heartbeat=pb.Heartbeat())
            half.socket.shutdown(socket.SHUT_WR)
            with self.assertRaises(EOFError):
                half.receive()
            id = whole.send(timeout_ms=1, barrier=pb.Barrier(model=whole.model, sequence=1))
            reply = whole.receive()
            self.assertEqual((reply.id, reply.error.code), (id, DEADLINE_EXCEEDED))
            self.assertIn('half', reply.error.message)

    # ------------------------------------------------------------ pulls

    def test_change_of_options_writes_everything(self):
        with Worker('since') as worker:
            worker.create('written', 'sgd(lr=1)', [[1], [1]])
            worker.push([1.0, 1.0])
            has_all = pb.Pull(model=worker.model, since=1)
            self.assertEqual(len(worker.call(pull=has_all).pull.unchanged), 2)
            worker.call(set=pb.SetOptions(model='written', change='lr=0.5'))
            reply = worker.call(pull=has_all)
            self.assertEqual(len(reply.pull.unchanged), 0)
            self.assertEqual(from_bytes(reply.data), [-1.0, -1.0])

    def test_values_beyond_a_type_are_held_and_counted(self):
        with Worker('held') as worker:
            worker.create('beyond', 'sgd(lr=1)', [[3]], [[1e6, 1.0, -1e6]])
            for dtype, held in (pb.FP16, 2), (pb.BF16, 0), (pb.FP32, 0):
                reply = worker.call(pull=pb.Pull(model=worker.model, dtype=dtype))
                self.assertEqual(reply.pull.held, held)
                if dtype == pb.FP16:
                    self.assertEqual(from_bytes(reply.data, dtype),
                                     [65504.0, 1.0, -65504.0])

    # ------------------------------------------------------------ pushes

    def test_each_assign_is_answered(self):
        table = pb.TensorTable(tensors=[pb.Tensor(name='a', shape=[2]),
                                        pb.Tensor(name='b', shape=[2])])
        with Worker('assigner') as worker:
            worker.model = worker.call(create=pb.CreateModel(
                model='assigned', specification=pb.Specification(expression='sgd(lr=1)'),
                initial=pb.CreateModel.ASSIGNED), data=table.SerializeToString()
            ).model.model
            for tensor, last in (1, False), (0, False), (0, True):
                self.assertEqual('assign', body_of(worker.call(
                    assign=pb.Assign(model=worker.model, last=last,
                                     segments=[pb.Segment(tensor=tensor, count=2)]),
                    data=to_bytes([tensor + 1.0, float(last)]))))
            self.assertEqual(worker.pull()[0], [1.0, 1.0, 2.0, 0.0])

    def test_frames_of_a_push_say_the_same(self):
        n = 16384
        for wrong in {'basis': 1}, {'samples': 2}, {'form': pb.Push.SUM}, \
                {'dtype': pb.BF16}, {'sequence': 9}:
            with Worker('differs') as worker:
                worker.create('differs', 'sgd(lr=1)', [[2 * n]])
                worker.sequence = 100 * (1 + len(str(wrong)))
                first = worker.push_message(
                    segments=[pb.Segment(offset=0, count=n)], last=False)
                id = worker.send(push=first, data=bytes(4 * n))
                second = pb.Push()
                second.CopyFrom(first)
                second.frame = 1
                second.segments[0].offset = n
                for field, value in wrong.items():
                    setattr(second, field, value)
                size = 2 if second.dtype else 4
                worker.send(id=id, push=second, data=bytes(size * n))
                self.assertEqual(worker.receive().error.code, INVALID_ARGUMENT)

    def test_refused_push_is_answered_once_whatever_follows_of_it(self):
        n = 16384
        with Worker('late frames') as worker:
            worker.create('late frames', 'sgd(lr=1)', [[3 * n]])
            first = worker.push_message(segments=[
                pb.Segment(tensor=9, count=n)], last=False)  # there is no such tensor
            id = worker.send(push=first, data=bytes(4 * n))
            reply = worker.receive()
            self.assertEqual((reply.id, reply.error.detail, reply.error.fate),
                             (id, pb.Error.NO_TENSOR, pb.PushReply.REFUSED), reply)
            for frame in 1, 2:
                first.frame, first.last = frame, frame == 2
                worker.send(id=id, push=first, data=bytes(4 * n))
            self.assertEqual(worker.push([1.0] * 3 * n).fate, pb.PushReply.APPLIED)

    def test_later_frame_without_its_first_is_not_known(self):
        n = 16384
        with Worker('late') as worker:
            worker.create('late', 'sgd(lr=1)', [[2 * n]])
            halves = [worker.push_message(segments=[pb.Segment(offset=at, count=n)],
                                          sequence=1, frame=at // n, last=at > 0)
                      for at in (0, n)]
            first = worker.send(push=halves[0], data=bytes(4 * n))
            with Worker('late') as again:  # the same session goes on, over another one
                again.call(open=pb.OpenModel(model='late', join=True))
                again.send(id=first, push=halves[1], data=bytes(4 * n))
                reply = again.receive()
                self.assertEqual((reply.id, reply.error.code, reply.error.fate),
                                 (first, INVALID_ARGUMENT, pb.PushReply.UNKNOWN), reply)
                whole = pb.Push(model=worker.model, sequence=1, last=True,
                                segments=segments(2 * n))
                self.assertEqual(again.call(push=whole, data=bytes(8 * n)).push.fate,
                                 pb.PushReply.APPLIED)

    def test_divisor_is_that_of_the_workers_who_name_a_tensor(self):
        for aggregate, both in ('weighted_mean', 0.25), ('mean', 0.5):
            model = f'divisor {aggregate}'
            with Worker('a') as a, Worker('b') as b:
                for worker in a, b:
                    worker.create(model, f'sgd(lr=1) + aggregate({aggregate})',
                                  [[1], [1], [3, 1]], sparse=[2])
                waiting = a.send(
                    push=a.push_message(samples=1, segments=segments(1, 1) + [
                        pb.Segment(tensor=2, rows=[1])]), data=to_bytes([1, 1, 1]))
                b.call(push=b.push_message(samples=3, segments=segments(1) + [
                    pb.Segment(tensor=2)]), data=to_bytes([0]))
                a.answer(waiting)
                self.assertEqual(a.pull()[0], [-both, -1.0, 0.0, -both, 0.0])

    def test_push_sent_again_while_it_waits_is_answered_once(self):
        with Worker('a') as a, Worker('b') as b:
            for worker in a, b:
                worker.create('echo', 'sgd(lr=1)', [[1]])
            message = a.push_message()
            a.send(push=message, data=to_bytes([1]))
            again = a.send(push=message, data=to_bytes([1]))
            a.call(heartbeat=pb.Heartbeat())
            b.push([1])
            self.assertEqual(a.answer(again).push.fate, pb.PushReply.APPLIED)
            a.call(heartbeat=pb.Heartbeat())
            self.assertEqual(a.pull()[0], [-1.0])

    def test_push_older_than_the_last_4096_is_out_of_range(self):
        with Worker('old') as worker:
            worker.create('old', 'sgd(lr=1)', [[1]])
            for sequence, fate in (2, pb.PushReply.APPLIED), (4097, pb.PushReply.APPLIED), \
                    (2, pb.PushReply.DUPLICATE), (4098, pb.PushReply.APPLIED):
                self.assertEqual(worker.push([1], sequence=sequence).fate, fate)
            for _ in range(2):
                id = worker.send(push=worker.push_message(sequence=2), data=to_bytes([1]))
                error = worker.receive().error
                self.assertEqual((error.code, error.detail),
                                 (OUT_OF_RANGE, pb.Error.TOO_OLD))
            self.assertEqual(worker.pull()[0], [-3.0])

    def fall_silent(self, *workers):
        """Until the daemon has taken them for dead, one after the other."""
        for worker in workers:
            with self.assertRaises(EOFError):
                while True:
                    worker.receive()
            worker.close()

    def test_hello_says_how_a_worker_came_to_be_taken_for_dead(self):
        first = Worker('silent', lease_ms=100)
        self.assertEqual((first.greeting.incarnation, first.greeting.lost), (1, ''))
        first.create('silence', 'sgd(lr=1)', [[1]])
        self.fall_silent(first)
        with Worker('silent', incarnation=1) as again:
            self.assertEqual(again.greeting.incarnation, 2)
            self.assertRegex(again.greeting.lost, 'after .* of silence')
        with Worker('silent', incarnation=2) as known:
            self.assertEqual((known.greeting.incarnation, known.greeting.lost), (2, ''))

    def test_push_names_eight_that_were_lost_and_the_next_one_the_rest(self):
        names = [f'lost {i}' for i in range(11)]
        asynchronous = pb.Consistency(mode=pb.Consistency.ASYNC)
        with Worker('left') as left:
            left.create('losses', 'sgd(lr=1)', [[1]], consistency=asynchronous)
            for name in names:
                worker = Worker(name, lease_ms=100)
                worker.create('losses', 'sgd(lr=1)', [[1]], consistency=asynchronous)
                self.fall_silent(worker)
            told = [list(left.push([1]).lost) for _ in range(3)]
            self.assertEqual(told, [names[:8], names[8:], []])

    def test_basis_of_the_future_is_the_present(self):
        for more in {}, {'consistency': pb.Consistency(backup=1)}, \
                {'consistency': pb.Consistency(mode=pb.Consistency.ASYNC, damping=True)}:
            with Worker('future') as worker:
                worker.create(f'future {more}'.replace('\n', ' '), 'sgd(lr=1)', [[1]],
                              **more)
                reply = worker.push([1], basis=10 ** 12)
                self.assertEqual((reply.fate, reply.staleness),
                                 (pb.PushReply.APPLIED, 0))
                self.assertEqual(worker.pull()[0], [-1.0])


NUMBERS = {
    Field.CPPTYPE_BOOL: (False, True),
    Field.CPPTYPE_UINT32: (0, 1, 4097, 2 ** 31, 2 ** 32 - 1),
    Field.CPPTYPE_UINT64: (0, 1, 2 ** 32, 2 ** 40 + 1, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1),
    Field.CPPTYPE_DOUBLE: (0.0, -0.0, 5e-324, -1.0, 1e308, float('inf'), float('nan')),
    Field.CPPTYPE_ENUM: (0, 1, 2, 99, -1, 2 ** 31 - 1),
}
WORDS = '', 'x', 'w' * 255, 'w' * 256, 'w' * 70000, '\0', '*' * 255


def limits_of(field):
    if field.type == Field.TYPE_BYTES:
        return b'', bytes(3), bytes(4), b'\xff' * 65536
    return NUMBERS.get(field.cpp_type, WORDS)


def at_limits(message):
    """Makes each field of the message, and of those in it, what it may be at most, least
    or not at all, one at a time; yields what was done. The last field is first, so that
    numbers of pushes, which use up all below, come after what makes a push."""
    saved = type(message)()
    saved.CopyFrom(message)
    for field in reversed(message.DESCRIPTOR.fields):
        repeated = field.label == Field.LABEL_REPEATED
        if field.message_type:
            for inner in (getattr(message, field.name) if repeated
                          else [getattr(message, field.name)]
                          if message.HasField(field.name) else []):
                yield from at_limits(inner)
            continue
        for value in limits_of(field) if field.name != 'id' else ():
            for count in (1, 5000) if repeated else (0,):
                if repeated:
                    getattr(message, field.name).extend([value] * count)
                else:
                    setattr(message, field.name, value)
                yield f'{field.full_name}: {count} {str(value)[:40]}'
                message.CopyFrom(saved)


class Limits(unittest.TestCase):
    """Requests that are right but for one field."""

    def answered(self, peer, request, what, also=None):
        """Once, in a sentence if with an error; perhaps with another id."""
        request.id = peer.new_id()
        peer.socket.sendall(wire.frame(request.SerializeToString()))
        reply = peer.receive()
        self.assertIn(reply.id, (request.id, also), what)
        if reply.HasField('error'):
            self.assertNotIn(reply.error.code, (0, INTERNAL), what)
            self.assertTrue(reply.error.message, what)

    kinds = ('create', 'open', 'list', 'describe', 'push', 'rows', 'pull', 'slot',
             'push_pull', 'wait', 'assign', 'set', 'barrier', 'rest', 'share', 'delete',
             'leave')

    def right(self, kind, model):
        """A right request of this kind, of all but hello and goodbye."""
        ones, segment = to_bytes([1.0] * 4), pb.Segment(count=4)
        push = pb.Push(model=model, last=True, segments=[segment])
        pull = pb.Pull(model=model, segments=[segment])
        adam = pb.Specification(
            rule='adam', options=[pb.Option(name='lr', number=0.1)],
            groups=[pb.TensorGroup(pattern='a', options=[
                pb.Option(name='weight_decay', number=0)])])
        return {
            'create': dict(create=pb.CreateModel(
                model='made', join=True, specification=adam,
                consistency=pb.Consistency(min_workers=1)), data=pb.TensorTable(
                    tensors=[pb.Tensor(name='a', shape=[3])]).SerializeToString()),
            'open': dict(open=pb.OpenModel(model='made', join=True)),
            'list': dict(list=pb.ListModels()),
            'describe': dict(describe=pb.DescribeModel(model='made')),
            'push': dict(push=push, data=ones),
            'rows': dict(push=pb.Push(model=model, last=True, segments=[
                pb.Segment(tensor=1, rows=[1, 2])]), data=ones),
            'pull': dict(pull=pull),
            'slot': dict(pull=pb.Pull(model=model, view=pb.SLOT, slot='exp_avg')),
            'push_pull': dict(push_pull=pb.PushPull(push=push, pull=pull), data=ones),
            'wait': dict(wait=pb.Wait(model=model)),
            'assign': dict(assign=pb.Assign(model=model, segments=[segment]), data=ones),
            'set': dict(set=pb.SetOptions(model='made', change='lr=0.5')),
            'barrier': dict(barrier=pb.Barrier(model=model, sequence=1)),
            'rest': dict(rest=pb.Rest(model=model)),
            'share': dict(share=pb.Share(model=model)),
            'delete': dict(delete=pb.DeleteModel(model='made')),
            'leave': dict(leave=pb.Leave(model=model)),
        }[kind]

    def test_every_field_at_its_limits_is_answered(self):
        policies = pb.Consistency(mode=pb.Consistency.ASYNC), pb.Consistency(
            mode=pb.Consistency.BOUNDED, staleness=2, damping=True), pb.Consistency(
            atomic=pb.Consistency.SHARD)
        for kind, consistency in itertools.product(self.kinds, policies):
            with Worker('limits') as worker:
                worker.create(f'limits {kind} {consistency}'.replace('\n', ' '), 'adam',
                              [[4], [8, 2]], sparse=[1], consistency=consistency)
                request = pb.Request(timeout_ms=1, **self.right(kind, worker.model))
                for count, what in enumerate(at_limits(request)):
                    for push in request.push, request.push_pull.push:
                        if push.model == worker.model and push.sequence == 0:
                            push.sequence = count + 1
                    self.answered(worker, request, what)
                moved = kind in ('push', 'rows', 'push_pull')
                worker.call(wait=pb.Wait(model=worker.model, step=int(moved)))

    def test_every_field_of_hello_at_its_limits_is_answered(self):
        """A header that is too long before hello is one whose id nobody reads."""
        request = pb.Request(hello=pb.Hello(protocol=1, worker='h', session=1, client='c'))
        for what in at_limits(request):
            with Connection(daemon_port()) as peer:
                self.answered(peer, request, what, also=0)


def write():
    document = read(DOCUMENT)
    answers = iter([annotated(came) for _, came in replay(document)])
    with open(DOCUMENT, 'w', encoding='utf-8') as file:
        file.write(BLOCK.sub(
            lambda block: block[0] if block[1] == 'client'
            else f'```daemon\n{next(answers)}```\n', document))


def main():
    if not os.access(DAEMON, os.X_OK):
        print(f'usage: {sys.argv[0]} DAEMON [--write]', file=sys.stderr)
        return 64
    if sys.argv[2:] == ['--write']:
        write()
        return 0
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    suite = unittest.TestSuite([load(Protocol), load(Sentences), load(Limits)])
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    failed = {str(getattr(test, 'test_case', test))
              for test, _ in result.failures + result.errors}
    passed = max(result.testsRun - len(failed), 0)
    print(f'{passed} passed, {len(failed)} failed')
    return 0 if passed and not failed else 1


if __name__ == '__main__':
    sys.exit(main())
