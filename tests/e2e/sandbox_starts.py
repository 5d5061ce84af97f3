"""Many starts of a sandbox in a row, each with a listener that is reached from inside.

usage: python -m tests.e2e.sandbox_starts [--starts 1000]      -- as a user, and as dropped root
"""

import argparse
import sys
import time

from tests.agent import enclosed
from tests.agent.enclosed import KINDS, Place, is_root

# bash opens sockets by itself: nothing else has to be inside.
ASKS = "exec 5<>/dev/tcp/127.0.0.1/3128; read -r said <&5; [ $said = hello ]"


def hello(listeners):
    (listening,) = listeners
    listening.settimeout(30)
    made, _ = listening.accept()
    with made:
        made.sendall(b"hello\n")


def starts(profile, count):
    """In the process of whoever starts them: what went wrong, and how long each took."""
    wrong, took_ms = [], []
    for number in range(count):
        began = time.perf_counter()
        said = enclosed.run(profile, ["/bin/bash", "-c", ASKS], {"PATH": "/usr/bin:/bin"}, hello)
        took_ms.append(round(1000 * (time.perf_counter() - began), 1))
        if said["refused"] or said["code"] != 0:
            wrong.append([number, said])
    return [wrong, took_ms]


def measured(kind, count):
    place = Place(kind)
    try:
        return enclosed.apart(kind, starts, place.profile(ports=(3128,)), count)
    finally:
        place.close()


def failures(kind, count):
    return measured(kind, count)[0]


def main():
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--starts", type=int, default=1000)
    count = asked.parse_args().starts
    failed = 0
    for kind in KINDS if is_root() else KINDS[:1]:
        wrong, took_ms = measured(kind, count)
        took_ms.sort()
        failed += len(wrong)
        print(
            f"{kind}: {count} starts, {len(wrong)} failed; with bash and an answer over the "
            f"listener p50 {took_ms[count // 2]} ms, p95 {took_ms[int(count * 0.95)]} ms"
        )
        for each in wrong[:3]:
            print(each)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
