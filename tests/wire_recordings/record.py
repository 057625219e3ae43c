"""Write conversation.txtpb as frames, as Python's protobuf does: README.md."""
import struct
import sys

from google.protobuf import text_format

import optimd_pb2 as pb

with open('conversation.txtpb', encoding='ascii') as lines, \
        open(sys.argv[1], 'wb') as out:
    for line in lines:
        if not line.startswith('#'):
            bytes_ = text_format.Parse(line, pb.Request()).SerializeToString()
            out.write(struct.pack('<I', len(bytes_)) + bytes_)
