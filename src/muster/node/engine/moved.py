"""What a server kept when it was alone goes to the cluster of which it is one now.

Rule 1: a cluster would hide what is in such a store. So a server of the old kind is begun beside,
for this computer alone, and what lies there is left at the cluster, under the same subjects.
Rule 2: the old store is removed when the cluster acknowledged all of it, but for what a mailbox
that is full there has no room for: who sent that offers it again. Before that nothing of it
is, and a move that was cut is made again: what is left twice is told apart by its hash, and by who
reads it.
"""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from muster import atomic_file
from muster.fleet.record import MachineRecord
from muster.node.engine.child import running
from muster.node.engine.told import AUTO, Told, configuration


async def move(  # noqa: PLR0917 - each is one thing that is told
    program: str, folder: Path, alone: Told, machine: str, live: Mapping[Any, MachineRecord],
    give: Callable[[str], Awaitable[None]],
) -> None:  # fmt: skip
    """Have what is in the store of a server alone given to the cluster; `give` gets its address.

    Raises: MusterError, OSError; then the store is there as before.
    """
    store, beside = folder / "store", folder / "alone"
    if not await asyncio.to_thread(store.exists):
        return
    written = configuration(alone, machine, live, folder, listen=AUTO, routes="", tls=False)
    log = beside / "server.log"
    written |= {"ports_file_dir": str(beside), "log_file": str(log)}
    beside.mkdir(mode=0o700, exist_ok=True)
    text = json.dumps(written, ensure_ascii=False).encode()
    atomic_file.write_file(beside / "server.json", text, mode=0o600)
    async with running(program, beside / "server.json", log) as (_, port):
        await give(f"nats://127.0.0.1:{port}")
    for each in (store, beside):
        await asyncio.to_thread(shutil.rmtree, each)
