"""Who has a blob, who may have it, and how it gets here.

Rule 1: a hash is not a capability. A blob is served under an entry that is here, that the asking
machine may read, that names the blob, and under which this machine came to have it: as the author
of the entry, or because it was fetched under that very entry. So nobody gets a blob by
writing its hash into an entry of their own.
Rule 2: every refusal reads the same, whether the entry, the right or the blob is missing.
Rule 3: the machine that ran the attempt is asked first, then every machine with a link; a hub may
pass on what it may read itself, to who may read it, and sees to that as if the blob were its own.
Where none of them gives it, it is asked for over mailboxes (node/links/blob_parcels.py).
Rule 4: what came is gone on with, whoever gave it. Where all of it is not the blob then, it comes
from the same machine once more from the beginning: who gave other bytes costs nobody else anything.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.context.kinds import ContextPut
from muster.errors import Conflict, Denied, Forged, Malformed, MusterError, NotFound, Unreachable
from muster.limits import BLOB_BYTES_MAX, BLOB_SILENCE_MS_MAX
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.call.streams import Served
from muster.node.counter import DECLARED
from muster.node.tasks.kept import kept_of
from muster.store.blobs import Blobs, Incoming
from muster.task import kinds
from muster.task.artefact import Artefact, laid_over, named
from muster.task.fold import ATTEMPT, TASK, TaskRow
from muster.task.large_value import apart, parse

if TYPE_CHECKING:
    from muster.node.core import Core
    from muster.node.runtime import Runtime

DECLARED[__name__] = {
    "blob-denied": "A machine asked for a blob that it may not have.",
    "blob-rotted": "A blob that was kept here is damaged, and fetched from others.",
    "blob-forged": "A machine gave another content than the blob's name says.",
    "blob-not-there": "A machine that should have a blob did not give it.",
}

Told = Callable[[Artefact, int], None]

_ID: Final = re.compile(r"[0-9a-f]{64}")
SILENCE_S: Final = BLOB_SILENCE_MS_MAX / 1000
# Slower than any line that people work over; whoever sends so has no room in anybody's queue.
SLOWEST_BYTES_S: Final = 4 * 1024
_NO: Final = "no entry that you may read names such a blob of this machine"


class Source(NamedTuple):
    """An artefact, the entry that names it, and the machine that wrote that entry."""

    artefact: Artefact
    entry: EntryId
    machine: MachineId


# --- what the log says ---------------------------------------------------------------------------


def sources(core: "Core", row: TaskRow) -> list[Source]:
    """The blobs that a settled task yielded. Raises: Conflict where it has no result."""
    entry = core.log.entry(row.settled)
    body = body_or_none(entry, kinds.TaskSettle)
    if entry is None or body is None:
        raise Conflict(f"task {row.task[:12]} is {row.state}: it has no result")
    found = named(body.commit, body.artefacts)
    if not found:
        return []
    # The owner cites the assignment and then the end of the attempt, which names the blobs.
    causes = [core.log.entry(cause) for cause in entry.causes]
    assigns = (body_or_none(cause, kinds.TaskAssign) for cause in causes)
    given = next((each for each in assigns if each is not None), None)
    ends: list[Entry] = []
    for cause in causes:
        end = body_or_none(cause, kinds.AttemptFinish)
        # Only how the attempt ended that was assigned so.
        if cause is not None and end is not None and given is not None:
            who = (end.task, end.epoch, cause.stream.machine)
            ends += [cause] * (who == (given.task, given.epoch, given.machine))
    if not ends:
        raise Malformed(f"the end of task {row.task[:12]} cites no attempt")
    return [Source(each, ends[0].id, ends[0].stream.machine) for each in found]


def repository_of(core: "Core", row: TaskRow) -> str:
    """The repository that a task works in, "" for none."""
    opened = body_or_none(core.log.entry(row.opened), kinds.TaskOpen)
    return "" if opened is None else opened.repo


def handed_on(core: "Core", owner: str, opened: kinds.TaskOpen) -> list[Source]:
    """What the phases before a task delivered, near and far, in the order to place it.

    Raises: Refused where two of them cannot lie in one folder.
    """
    if not opened.run or opened.repo:
        return []
    kept = kept_of(core.store, owner, opened.run)
    after: dict[str, list[str]] = {}
    found: dict[str, dict[Artefact, Source]] = {}
    todo = _after(opened)
    while todo:
        phase = todo.pop(0)
        if phase in after:
            continue
        after[phase], found[phase] = [], {}
        run, order = kept.get(phase, opened.run), ("changed_ms",)
        rows = core.tables.rows(TASK, writer=owner, order=order, run=run, phase=phase, state="done")
        # A task for each match, and of a race the first that was done.
        done = list({row.task: row for row in rows}.values())
        first = body_or_none(core.log.entry(done[0].opened), kinds.TaskOpen) if done else None
        for row in done[:1] if first is not None and first.template.get("race") else done:
            template = body_or_none(core.log.entry(row.opened), kinds.TaskOpen)
            after[phase] = _after(template)
            if template is None or template.template.get("by") != "human":
                found[phase].update({s.artefact: s for s in sources(core, row)})
        todo += after[phase]
    try:
        sequence = list(TopologicalSorter(after).static_order())
    except CycleError as error:
        raise Malformed("the phases before this one wait for each other") from error
    above: dict[str, set[str]] = {}
    for phase in sequence:
        above[phase] = set(after[phase]).union(*(above[before] for before in after[phase]))
    laid = laid_over({phase: list(found[phase]) for phase in sequence}, above)
    return [found[phase][artefact] for phase, artefact in laid]


def _after(opened: kinds.TaskOpen | None) -> list[str]:
    found = opened.template.get("after") if opened else None
    return [str(phase) for phase in found] if isinstance(found, list) else []


def _names(entry: Entry, sha256: str) -> bool:
    version = body_or_none(entry, ContextPut)
    if version is not None:
        return version.blob == sha256
    body = body_or_none(entry, kinds.AttemptFinish)
    if body is None:
        return False
    try:
        found = {each.sha256 for each in named(body.commit, body.artefacts)}
        return sha256 in found | {parse(text).sha256 for text in apart(body.values)[1].values()}
    except Malformed:
        return False


# --- who may ------------------------------------------------------------------------------------


def readable(core: "Core", peer: str, entry_id: EntryId, sha256: str) -> Entry:
    """The entry under which a machine may have a blob. Raises: Denied."""
    entry = core.log.entry(entry_id)
    machine = MachineId(peer)
    if (
        entry is None
        or not core.membership.may_hold(entry.stream, machine)
        or entry.header.seq < core.roster.held_from(entry.stream, machine)
        or not _names(entry, sha256)
    ):
        core.counters["blob-denied"] += 1
        raise Denied(_NO)
    return entry


def is_ours(core: "Core", blobs: Blobs, entry: Entry, sha256: str) -> bool:
    """Whether we have the blob, and have it under this entry, which names it."""
    if not blobs.has(sha256):
        return False
    # What our own entries name was kept from an attempt's folder before they were written.
    return entry.stream.machine == core.machine or entry_claim(entry.id) in blobs.claims(sha256)


def check(core: "Core", blobs: Blobs, peer: str, entry_id: EntryId, sha256: str) -> None:
    """Whether a machine may have a blob from us. Raises: Denied, NotFound where we have it not."""
    if not is_ours(core, blobs, readable(core, peer, entry_id, sha256), sha256):
        raise NotFound("this machine has no such blob")


def entry_claim(entry: EntryId) -> str:
    """We fetched it under this entry."""
    return f"entry {entry.hex()}"


def attempt_claim(task: str, epoch: kinds.Epoch) -> str:
    """An attempt of ours delivered it; the entry that names it is written after it is kept."""
    return f"attempt {task} {kinds.epoch_text(epoch)}"


def is_named(core: "Core", sha256: str, claim: str) -> bool:
    """Whether an entry that is here names a blob, as a claim beside it says."""
    word, _, rest = claim.partition(" ")
    if word == "entry":
        found = [bytes.fromhex(rest)] if _ID.fullmatch(rest) else []
    else:
        task, _, epoch_there = rest.partition(" ")
        rows = core.tables.rows(ATTEMPT, writer=core.machine, task=task)
        found = [row.ended for row in rows if epoch_there == kinds.epoch_text(row.epoch)]
    entries = [core.log.entry(each) for each in found]
    return any(entry is not None and _names(entry, sha256) for entry in entries)


# --- serving --------------------------------------------------------------------------------------


async def serve(daemon: "Runtime", call: ev.Perform, stream: Served) -> None:
    """A blob, to a machine that may read an entry that names it. Raises: Denied, Unreachable."""
    core, blobs = daemon.core, daemon.machine.blobs
    named_by, sha256 = call.args.get("entry"), call.args.get("sha256")
    if not isinstance(named_by, str) or not isinstance(sha256, str):
        raise Malformed("a blob is asked for by an entry and a sha256")
    try:
        entry_id = EntryId(bytes.fromhex(named_by))
    except ValueError as error:
        raise Malformed("the entry that names a blob is not an id") from error
    entry = readable(core, call.peer, entry_id, sha256)
    stream.silence_s = SILENCE_S
    at = call.args.get("at", 0)
    if not isinstance(at, int) or not 0 <= at <= BLOB_BYTES_MAX:
        raise Malformed("a blob is asked for from a byte on that it may have")
    if not is_ours(core, blobs, entry, sha256):
        link = core.link_to(entry.stream.machine)
        if call.args.get("direct") or link is None or link == call.link:
            raise NotFound("this machine has no such blob, and no link to who has")
        args = {"direct": True, "entry": entry_id.hex(), "sha256": sha256} | _from(at)
        await daemon.streams.pass_on(stream, link, "blob.serve", args)
        return
    stream.accept(at)
    end = 0
    for chunk in blobs.read(sha256):
        end += len(chunk)
        if end > at:
            await stream.send(chunk[max(0, at - end + len(chunk)) :])
        else:
            await asyncio.sleep(0)


def _from(at: int) -> dict[str, int]:
    # A machine from before it was there begins at 0 and does not say so.
    return {"at": at} if at else {}


# --- fetching ----------------------------------------------------------------------------------


async def bring(
    daemon: "Runtime", source: Source, told: Told = lambda _artefact, _got: None
) -> None:
    """See to it that a blob is here, whole and under its entry.

    Raises: Denied where its author says no, Forged where what came is something else, Unreachable
    where nobody who is linked has it; Broken.
    """
    core, blobs, artefact = daemon.core, daemon.machine.blobs, source.artefact
    entry = core.log.entry(source.entry)
    ours = entry_claim(source.entry) in blobs.claims(artefact.sha256) or (
        entry is not None and is_ours(core, blobs, entry, artefact.sha256)
    )
    if ours:
        if await asyncio.to_thread(blobs.intact, artefact.sha256):
            return
        core.counters["blob-rotted"] += 1
    forged: MusterError | None = None
    # Whom to ask: who made it, the hubs, everybody else with a link.
    linked = {MachineId(link.peer) for link in core.links.values() if link.peer}
    hubs = set(core.leads())
    for machine in sorted(linked, key=lambda m: (m != source.machine, m not in hubs, m)):
        try:
            await _bring_from(daemon, machine, source, told)
        except Forged as error:
            core.counters["blob-forged"] += 1
            forged = error
        except Denied:
            if machine == source.machine:
                raise
        except (Unreachable, NotFound, Conflict, Malformed, TimeoutError):
            core.counters["blob-not-there"] += 1
        else:
            return
    for machine, box in daemon.mailboxes.blobs.boxes(source.machine):
        # Who was asked over a link has said what there is to say.
        if machine in linked:
            continue
        left = partial(daemon.mailboxes.blobs.bring, box, source.entry, source.artefact, told)
        try:
            await _kept(daemon, source, left)
        except Forged as error:
            core.counters["blob-forged"] += 1
            forged = error
        except (Unreachable, NotFound, Malformed):
            core.counters["blob-not-there"] += 1
        else:
            return
    if forged is not None:
        raise forged
    name = core.membership.name_of(source.machine)
    if source.machine == core.machine:
        raise NotFound(
            f"{artefact.path} was kept on this machine and is gone from its home, and nobody whom "
            "this machine reaches has it: run its task again"
        )
    raise Unreachable(
        f"{artefact.path} is on {name}, and nobody whom this machine reaches gave it; "
        f"try again when {name} is up"
    )


async def _bring_from(daemon: "Runtime", machine: MachineId, source: Source, told: Told) -> None:
    async def over_link(blob: Incoming) -> None:
        link = daemon.core.link_to(machine)
        if link is None:
            raise Unreachable("the link is gone")
        args = {"entry": source.entry.hex(), "sha256": source.artefact.sha256} | _from(blob.size)
        # Whoever sends a byte now and then is not silent: all of it has its time as well.
        until_s = SILENCE_S + source.artefact.size / SLOWEST_BYTES_S
        async with (
            asyncio.timeout(until_s),
            daemon.streams.call(link, "blob.serve", args) as stream,
        ):
            stream.silence_s = SILENCE_S
            known = blob.size - stream.at
            if stream.at not in {0, blob.size}:
                raise Malformed("a blob is gone on with where nobody asked for it")
            while data := await stream.receive():
                blob.write(data[known:])
                known = max(0, known - len(data))
                told(source.artefact, blob.size)

    await _kept(daemon, source, over_link)


async def _kept(
    daemon: "Runtime", source: Source, fill: Callable[[Incoming], Awaitable[None]]
) -> None:
    """Keep what `fill` makes of what is here of a blob. Raises: Forged; as `fill`, Broken."""
    blobs, artefact, claim = daemon.machine.blobs, source.artefact, entry_claim(source.entry)
    while True:
        with blobs.resume(artefact.sha256, claim, artefact.size) as blob:
            await asyncio.to_thread(blob.go_on)
            known = blob.size
            if not known or known < artefact.size:
                await fill(blob)
            try:
                # The disk may take its time to be sure; the rest of the machine goes on.
                await asyncio.to_thread(blob.keep, artefact.sha256, artefact.size)
            except Forged:
                if not known:
                    raise
                continue
        blobs.claim(artefact.sha256, claim)
        return
