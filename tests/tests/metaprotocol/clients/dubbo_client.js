// A Dubbo client on one connection, with the group and version of its service.
//
//     dubbo_client.js HOST PORT INTERFACE GROUP VERSION
//
// Each line on standard input is {"method", "calls"} and is answered by {answer: number}.
'use strict';

const readline = require('readline');
const { DirectlyDubbo, java } = require('dubbo2.js');

const [host, port, dubboInterface, group, version] = process.argv.slice(2);
const dubbo = DirectlyDubbo.from({ dubboAddress: `${host}:${port}`, dubboVersion: '2.0.2', dubboInvokeTimeout: 10 });
const method = (who) => [java.String(who)];
const service = dubbo.proxyService({
  dubboInterface,
  group,
  version,
  methods: { say: method, bye: method },
});

async function answer(line) {
  const wanted = JSON.parse(line);
  const counts = {};
  for (let i = 0; i < wanted.calls; i += 1) {
    const { res, err } = await service[wanted.method]('me');
    const key = err ? 'error' : res;
    counts[key] = (counts[key] || 0) + 1;
  }
  console.log(JSON.stringify(counts));
}

let last = Promise.resolve();
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  last = last.then(() => answer(line));
}).on('close', () => last.finally(() => process.exit(0)));
