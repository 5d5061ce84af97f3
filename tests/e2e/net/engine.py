"""`make engine N=`: N messages through three NATS servers, leaders killed under load, none lost.

python -m tests.e2e.net.engine --messages 100000
"""

import argparse
import logging
import os
import tempfile
from pathlib import Path

from tests.node.nats_servers import measure

MESSAGES_PER_KILL = 10_000


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=0, help="0: one for each 10,000 messages")
    told = parser.parse_args()
    # The library of Python says this of each TLS connection that ends.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    kills = told.kills or max(1, told.messages // MESSAGES_PER_KILL)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="muster-engine-") as folder:
        found = measure(Path(folder), told.messages, kills)
    print(
        f"{found.acknowledged} messages acknowledged by three NATS servers, whose leaders were killed "
        f"{found.kills} times under load: {found.lost} lost, {found.doubled} doubled\n"
        f"({found.again} given again before their acknowledgement held, {found.retries} retries; "
        f"{found.seconds:.0f} s, longest time without one {found.longest_gap_s:.1f} s; load before "
        f"{before:.1f}, {os.cpu_count()} cores)"
    )
    return 1 if found.lost or found.doubled or found.acknowledged != told.messages else 0


if __name__ == "__main__":
    raise SystemExit(main())
