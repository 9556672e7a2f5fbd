// A Dubbo server: every call answers the server's name, a call of `slow` after its time.
//
//     dubbo_server.js NAME
//
// Prints its port. A line on standard input is answered by the number of calls so far.
'use strict';

const net = require('net');
const { decode } = require('dubbo-remoting/lib/protocol');
const Encoder = require('dubbo-remoting/lib/encoder');

const HEADER = 16;
const SLOW_MS = 700;
const name = process.argv[2];
let calls = 0;

function serve(socket) {
  const encoder = new Encoder({ sentReqs: new Map(), classCache: new Map() });
  encoder.pipe(socket);
  let rest = Buffer.alloc(0);
  const answer = (request) => encoder.writeResponse(request, { isError: false, appResponse: name });
  const handle = (frame) => {
    const request = decode(frame, { sentReqs: new Map(), classCache: new Map() });
    if (request.packetType === 'heartbeat') {
      encoder.writeHeartbeatAck(request);
      return;
    }
    calls += 1;
    if (request.data.methodName === 'slow') {
      setTimeout(answer, SLOW_MS, request);
    } else {
      answer(request);
    }
  };
  socket.on('error', () => socket.destroy());
  socket.on('data', (data) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= HEADER) {
      const size = HEADER + rest.readUInt32BE(12);
      if (rest.length < size) return;
      handle(rest.subarray(0, size));
      rest = rest.subarray(size);
    }
  });
}

const server = net.createServer(serve);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('data', () => console.log(calls));
process.stdin.on('end', () => process.exit(0));
