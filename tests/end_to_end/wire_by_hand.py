"""The wire of optimd in plain Python: frames, protobuf fields, values, a connection.

For tests that must know every byte. Fields are put together by hand here, in whatever
order a test wants; everything else uses the classes that protoc makes from the protocol.
"""
import socket
import struct

import optimd_pb2 as pb

DATA_FIELD = 2047


# ------------------------------------------------------------------ protobuf by hand

def varint(value):
    """An unsigned number, seven bits a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(field, value):
    """Wire type 0."""
    return varint(field << 3) + varint(value)


def fixed64_field(field, value):
    """Wire type 1."""
    return varint(field << 3 | 1) + struct.pack('<Q', value)


def bytes_field(field, value):
    """Wire type 2: bytes, text, messages, packed numbers."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def frame(message):
    """A message with its length before it."""
    return struct.pack('<I', len(message)) + message


# ------------------------------------------------------------------ values

def fp32(value):
    """The nearest binary32 number."""
    return struct.unpack('<f', struct.pack('<f', value))[0]


def narrow_bf16(value):
    """The nearest bf16 number as its 16 bits, ties to even."""
    bits = struct.unpack('<I', struct.pack('<f', value))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def to_bytes(values, dtype=pb.FP32):
    """Values as they travel."""
    if dtype == pb.FP32:
        return struct.pack(f'<{len(values)}f', *values)
    if dtype == pb.FP16:
        return struct.pack(f'<{len(values)}e', *values)
    return struct.pack(f'<{len(values)}H', *map(narrow_bf16, values))


def from_bytes(data, dtype=pb.FP32):
    """The reverse, as a list."""
    if dtype == pb.FP32:
        return list(struct.unpack(f'<{len(data) // 4}f', data))
    if dtype == pb.FP16:
        return list(struct.unpack(f'<{len(data) // 2}e', data))
    wide = [bits << 16 for bits in struct.unpack(f'<{len(data) // 2}H', data)]
    return list(struct.unpack(f'<{len(wide)}f', struct.pack(f'<{len(wide)}I', *wide)))


# ------------------------------------------------------------------ a connection

class Refused(Exception):
    """The daemon answered with an Error."""

    def __init__(self, error):
        super().__init__(f'{error.code}: {error.message}')
        self.code = error.code
        self.message = error.message


def body_of(reply):
    """The name of its body: of its fields, the one that is a message."""
    return next(field.name for field, _ in reply.ListFields() if field.message_type)


class Connection:
    """A socket to the daemon. Every wait ends after `patience` seconds."""

    def __init__(self, port, patience=20):
        self.socket = socket.create_connection(('127.0.0.1', port), timeout=patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.next_id = 1

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def new_id(self):
        self.next_id += 1
        return self.next_id - 1

    def receive_exactly(self, size):
        parts = bytearray()
        while len(parts) < size:
            part = self.socket.recv(size - len(parts))
            if not part:
                raise EOFError('the daemon closed the connection')
            parts += part
        return bytes(parts)

    def receive(self):
        """The next Reply, an error or not."""
        size = struct.unpack('<I', self.receive_exactly(4))[0]
        return pb.Reply.FromString(self.receive_exactly(size))

    def send(self, data=b'', id=None, timeout_ms=0, **body):
        """Send one request, the body as a keyword: push=pb.Push(...). Returns its id."""
        id = id or self.new_id()
        request = pb.Request(id=id, timeout_ms=timeout_ms, data=data, **body)
        self.socket.sendall(frame(request.SerializeToString()))
        return id

    def answer(self, id):
        """The one Reply to a request; its error is raised."""
        reply = self.receive()
        assert reply.id == id, f'an answer to {reply.id} instead of {id}'
        if reply.HasField('error'):
            raise Refused(reply.error)
        return reply

    def call(self, data=b'', timeout_ms=0, **body):
        """Send one request and take its one Reply."""
        return self.answer(self.send(data, timeout_ms=timeout_ms, **body))

    def hello(self, worker, session=1, **more):
        return self.call(hello=pb.Hello(protocol=1, worker=worker, session=session,
                                        client='python', **more)).hello
