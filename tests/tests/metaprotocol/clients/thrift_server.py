"""A Thrift server: every call answers the server's name. Plain and multiplexed calls, framed binary.

    thrift_server.py NAME

Prints its port. A line on standard input is answered by the number of calls so far.
"""

import os
import sys
import threading

import thriftpy2
from thriftpy2.protocol import TBinaryProtocolFactory
from thriftpy2.server import TThreadedServer
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TFramedTransportFactory, TServerSocket

HERE = os.path.dirname(os.path.abspath(__file__))
demo = thriftpy2.load(os.path.join(HERE, "demo.thrift"), module_name="demo_thrift")


class Handler:
    def __init__(self, name):
        self.name = name
        self.calls = 0
        self.lock = threading.Lock()

    def _answer(self):
        with self.lock:
            self.calls += 1
        return self.name

    def say(self, who):
        return self._answer()

    def bye(self, who):
        return self._answer()


class Processor(TProcessor):
    def process_in(self, iprot):
        api, kind, seqid = iprot.read_message_begin()
        api = api.split(":")[-1]
        args = getattr(self._service, api + "_args")()
        args.read(iprot)
        iprot.read_message_end()
        result = getattr(self._service, api + "_result")()
        values = [args.__dict__[item[1]] for item in args.thrift_spec.values()]
        return api, seqid, result, lambda: getattr(self._handler, api)(*values)


def main():
    handler = Handler(sys.argv[1])
    # Envoy keeps idle connections, which the default time limit would close.
    listening = TServerSocket(host="127.0.0.1", port=0, client_timeout=None)
    server = TThreadedServer(
        Processor(demo.Hello, handler),
        listening,
        iprot_factory=TBinaryProtocolFactory(),
        itrans_factory=TFramedTransportFactory(),
    )
    server.daemon = True
    listening.listen()
    listening.listen = lambda: None
    threading.Thread(target=server.serve, daemon=True).start()
    print(listening.sock.getsockname()[1], flush=True)
    for _ in sys.stdin:
        print(handler.calls, flush=True)


main()
