"""Verifying a log of a million entries: what `muster audit verify` does, in one process.

Every header is parsed and compared with its canonical form, every body hashed against its header,
the Merkle tree built anew, every kept seal opened and compared with the root at its size. The log
is a stream of ~300 byte bodies with 100 entries per seal; and one with a seal for each entry.
The short form verifies a tenth and scales up.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.figure import Figure
from muster.fleet.kinds import MACHINE_OPEN, MachineOpen
from muster.fleet.machine import Authority, Identity
from muster.fleet.record import sign_binding, sign_record
from muster.log import canon
from muster.log.stream import FLEET, JOURNAL, FleetId, Incarnation, StreamName
from muster.store.store import Draft, Store
from muster.verbs.log_source import Source, database_source
from muster.verbs.verify import verify

MILLION = 1_000_000
NOW_MS = 1_790_000_000_000
TEXT = "The quick brown fox jumps over the lazy dog and then it rests. " * 4


@contextmanager
def log(entries: int, per_seal: int) -> Iterator[tuple[Source, FleetId]]:
    authority = Authority(os.urandom(32))
    identity = Identity(os.urandom(32))
    record = sign_record(
        authority,
        sign_binding(identity, authority.fleet, "m0"),
        roles=["hub"],
        serial=1,
        issued_ms=NOW_MS,
    )
    incarnation = Incarnation("0" * 32)
    fleet = StreamName(identity.machine, incarnation, FLEET)
    journal = StreamName(identity.machine, incarnation, JOURNAL)
    opened = Draft(
        MACHINE_OPEN,
        "muster",
        (),
        canon.encode(msgspec.to_builtins(MachineOpen(record.decode()))),
    )
    bodies = [canon.encode({"id": f"job-{n}", "text": TEXT[:220]}) for n in range(per_seal)]
    drafts = [Draft("agent.output", "claude@studio", (), body) for body in bodies]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        store = Store(path, fleet=authority.fleet, machine=identity.machine, rng=os.urandom)
        signer = identity.signer("seal")
        with store.transaction():
            store.append(fleet, (opened,), NOW_MS)
            store.seal_dirty(signer)
        for at in range(0, entries, per_seal):
            with store.transaction():
                store.append(journal, drafts, NOW_MS + at)
                store.seal_dirty(signer)
        store.close()
        yield database_source(str(path)), authority.fleet


def seconds_per_million(entries: int, per_seal: int) -> float:
    with log(entries, per_seal) as (source, fleet):
        start = time.perf_counter()
        report = verify(source, fleet, lambda _: None)
        spent = time.perf_counter() - start
        assert not report.findings(), report.findings()[0]
        assert sum(each.entries for each in report.streams) == entries + 1
    return spent / entries * MILLION


async def run(*, short: bool) -> list[Figure]:
    entries, single = (MILLION // 10, 5_000) if short else (MILLION, 50_000)
    spent = await asyncio.to_thread(seconds_per_million, entries, 100)
    each = await asyncio.to_thread(seconds_per_million, single, 1)
    scaled = f"measured {entries:,}" + (", scaled" if short else "")
    return [
        Figure(
            "verify 1,000,000 entries, 100 per seal",
            spent,
            30.0,
            f"{MILLION / spent:,.0f}/s ({scaled}); one entry per seal: {each:.1f} s "
            f"(measured {single:,}, scaled)",
            unit="s",
        )
    ]
