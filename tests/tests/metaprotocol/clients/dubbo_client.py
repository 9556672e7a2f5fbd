"""A Dubbo client on one connection.

    dubbo_client.py HOST PORT

Each line on standard input is {"interface", "method", "calls", "version"?, "arguments"?, "attachments"?} and is answered
by {answer: number}; an error is the answer "error".
"""

import json
import logging
import sys

from dubbo.client import DubboClient

logging.disable(logging.CRITICAL)
SECONDS = 10


def main():
    host = "%s:%s" % (sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        wanted = json.loads(line)
        client = DubboClient(
            wanted["interface"], version=wanted.get("version", "1.0.0"), host=host
        )
        counts = {}
        for _ in range(wanted["calls"]):
            try:
                answer = client.call(
                    wanted["method"],
                    wanted.get("arguments", ["me"]),
                    context=wanted.get("attachments"),
                    timeout=SECONDS,
                )
            except Exception:  # every kind is an answer to count
                answer = "error"
            counts[answer] = counts.get(answer, 0) + 1
        print(json.dumps(counts), flush=True)


main()
