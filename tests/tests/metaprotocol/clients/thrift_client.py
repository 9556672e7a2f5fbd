"""A Thrift client on one connection.

    thrift_client.py HOST PORT [header]

Each line on standard input is {"method", "calls", "service"?, "headers"?} and is answered by {answer: number}. An error
is the answer "error: ..." and ends the connection; the next line opens another one. With `header`, calls go over the
THeader transport.
"""

import json
import os
import socket
import struct
import sys

import thriftpy2
from thriftpy2.protocol import TBinaryProtocol
from thriftpy2.protocol.binary import TBinaryProtocol as PlainBinaryProtocol
from thriftpy2.protocol.multiplex import TMultiplexedProtocol
from thriftpy2.thrift import TClient
from thriftpy2.transport import TFramedTransport, TSocket
from thriftpy2.transport.memory import TMemoryBuffer

HERE = os.path.dirname(os.path.abspath(__file__))
demo = thriftpy2.load(os.path.join(HERE, "demo.thrift"), module_name="demo_thrift")
SECONDS = 10


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class THeader:
    """A transport: https://github.com/apache/thrift/blob/master/doc/specs/HeaderFormat.md, key-value headers only."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=SECONDS)
        self.out = bytearray()
        self.rest = TMemoryBuffer()
        self.headers = {}
        self.seq = 0

    def write(self, data):
        self.out += data

    def read(self, size):
        return self.rest.read(size)

    def flush(self):
        self.seq += 1
        header = bytearray(varint(0) + varint(0))
        if self.headers:
            header += varint(1) + varint(len(self.headers))
            for key, value in self.headers.items():
                for text in (key.encode(), value.encode()):
                    header += varint(len(text)) + text
        header += b"\0" * (-len(header) % 4)
        frame = struct.pack(">HHIH", 0x0FFF, 0, self.seq, len(header) // 4) + header + self.out
        self.out = bytearray()
        self.socket.sendall(struct.pack(">I", len(frame)) + frame)
        size = struct.unpack(">I", self._exactly(4))[0]
        frame = self._exactly(size)
        words = struct.unpack(">H", frame[8:10])[0]
        self.rest = TMemoryBuffer(bytes(frame[10 + 4 * words:]))

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError("closed")
            data += more
        return data

    def close(self):
        self.socket.close()


class Connection:
    def __init__(self, host, port, header):
        if header:
            self.transport = THeader(host, port)
            # The compiled protocol takes compiled transports only.
            self.protocol = PlainBinaryProtocol(self.transport)
        else:
            raw = TSocket(host=host, port=port, socket_timeout=SECONDS * 1000)
            self.transport = TFramedTransport(raw)
            self.transport.open()
            self.protocol = TBinaryProtocol(self.transport)

    def call(self, wanted):
        protocol = self.protocol
        if wanted.get("service"):
            protocol = TMultiplexedProtocol(protocol, wanted["service"])
        if isinstance(self.transport, THeader):
            self.transport.headers = wanted.get("headers", {})
        return getattr(TClient(demo.Hello, protocol), wanted["method"])("me")


def main():
    host, port, header = sys.argv[1], int(sys.argv[2]), "header" in sys.argv[3:]
    connection = None
    for line in sys.stdin:
        wanted = json.loads(line)
        counts = {}
        for _ in range(wanted["calls"]):
            try:
                connection = connection or Connection(host, port, header)
                answer = connection.call(wanted)
            except Exception as error:  # every kind is an answer to count
                answer = "error: %s" % error
                if connection:
                    connection.transport.close()
                connection = None
            counts[answer] = counts.get(answer, 0) + 1
        print(json.dumps(counts), flush=True)


main()
