"""Whether a log holds: every entry, every root, every signature, checked from the bytes up.

Rule 1: nothing that a fold computed is believed. Who is a machine, and who was revoked, is read
again from the signed documents in the entries; the fleet's id is all that is trusted.
Rule 2: what does not hold is named with its stream and place, once: after a broken entry the rest
of its stream proves nothing, so the next finding is in the next stream.
Rule 3: nothing is changed, and no clock is read.

What a good answer means is the text of docs/spec/log.md, section 8: below the largest cosign of
another machine nobody can have changed anything since; above it (the exposure window) the
writing machine alone is trusted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from muster.errors import Malformed, MusterError, Refused
from muster.fleet import kinds
from muster.fleet.acknowledgement import KINDS, name_of, read
from muster.fleet.operator_end import acknowledged, ended, open_end
from muster.fleet.record import (
    MachineRecord,
    Revocation,
    open_operator,
    open_record,
    open_revocation,
)
from muster.log import canon, tree
from muster.log.entry import Entry, parse
from muster.log.fold import Skip, body_as
from muster.log.fork import open_fork, stream_of
from muster.log.seal import open_cosign, open_seal, peek_cosigner
from muster.log.stream import FLEET, FleetId, MachineId
from muster.log.tree import Range
from muster.log.wire import MESSAGE_BYTES_MAX
from muster.verbs.log_source import Head, Source, Stream

# How often somebody who waits hears something.
PROGRESS_ENTRIES: Final = 50_000
# The entries that say who is who, and whose word counts.
_DOCUMENTS: Final[dict[str, type[Any]]] = {
    kinds.MACHINE_OPEN: kinds.MachineOpen,
    kinds.MACHINE_RECORD: kinds.MachineRecorded,
    kinds.MACHINE_REVOKE: kinds.MachineRevoke,
    kinds.OPERATOR_RECORD: kinds.OperatorRecorded,
    kinds.OPERATOR_END: kinds.OperatorEnd,
}


@dataclass(slots=True)
class Checked:
    """What is known of one stream after it was read."""

    stream: Stream
    entries: int = 0
    withheld: int = 0
    vouched: int = 0
    # The root at every size that somebody signed, as far as the entries hold.
    roots: dict[int, bytes] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def exposed(self) -> int:
        return max(0, min(self.entries, self.stream.size) - self.vouched)


@dataclass(slots=True)
class Report:
    """The answer."""

    fleet: FleetId
    own: str = ""
    streams: list[Checked] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    machines: dict[MachineId, MachineRecord] = field(default_factory=dict)
    revoked: dict[str, Revocation] = field(default_factory=dict)
    # Every revocation that holds, as signed text: a later one takes nothing back.
    revocations: dict[str, None] = field(default_factory=dict)
    operators: set[str] = field(default_factory=set)
    # What of revoked operators' keys still counts.
    ends: list[bytes] = field(default_factory=list)
    # Who looked at which incident, for all that is signed; and the forks that were found.
    acknowledged: set[tuple[str, str]] = field(default_factory=set)
    forks: list[dict[str, Any]] = field(default_factory=list)

    def findings(self) -> list[str]:
        found = list(self.wrong)
        for each in self.streams:
            found += [f"stream {each.stream.name}: {text}" for text in each.wrong]
        return found


def verify(
    source: Source, fleet: FleetId, progress: Callable[[int], None], own: str = ""
) -> Report:
    """Check everything; `progress` hears how many entries are done.

    Of the streams of `own`, the machine whose log this is, every entry must be here: a head that
    anybody signed beyond them says that the end was cut off.
    """
    report = Report(fleet, own)
    documents = [("a machine record", _record, raw) for raw in source.records]
    documents += [("a revocation", _revocation, raw) for raw in source.revocations]
    for what, take, raw in documents:
        try:
            take(report, raw)
        except Refused as error:
            report.wrong.append(f"{what} does not hold: {error}")
    done = 0
    for stream in source.streams:
        checked = Checked(stream)
        report.streams.append(checked)
        for count in _read(source, checked, report):
            done += count
            progress(done)
    for checked in report.streams:
        checked.wrong += _signatures(checked, report)
        name = checked.stream.name
        if revocation := report.revoked.get(name.machine):
            cut = revocation.cuts.get(str(name), 0)
            # What was cut back is kept as evidence and does not count.
            if min(checked.entries, checked.stream.size) > cut:
                checked.wrong.append(
                    f"seq {cut}: from here on nothing counts, its machine is revoked"
                )
    for evidence in source.forks:
        _cut_back(evidence, report)
    return report


# --- entries -------------------------------------------------------------------------------------


def _read(source: Source, checked: Checked, report: Report) -> Iterator[int]:
    """Walk the entries of a stream; gives how many were read since it last gave."""
    stream = checked.stream
    sizes = {stream.size, *(head.upto for head in (*stream.seals, *stream.cosigns))}
    grown, last = Range(), (-1, 0)
    checked.roots[0] = grown.root()
    fleet_scope = stream.name.scope == FLEET
    name, author, append = str(stream.name), stream.name.machine, grown.append
    try:
        for seq, (header, salt, body) in enumerate(source.rows(stream)):
            entry = parse(header, salt, body)
            found = entry.header
            if found.seq != seq or found.stream != name or found.author != author:
                raise Malformed(f"here lies entry {found.seq} of {found.stream}")
            if found.t <= last:
                raise Malformed("its time is not later than that of the entry before")
            last = found.t
            append(entry.id)
            checked.entries = size = seq + 1
            checked.withheld += body is None
            if size in sizes:
                checked.roots[size] = grown.root()
            if fleet_scope and (found.kind in _DOCUMENTS or found.kind in KINDS):
                _document(entry, report)
            if size % PROGRESS_ENTRIES == 0:
                yield PROGRESS_ENTRIES
            claimed = stream.claimed if size == stream.size else None
            if claimed is not None and claimed != (grown.size, grown.encode()):
                checked.wrong.append(f"seq {size}: the stored range is not that of the entries")
    except (MusterError, TypeError) as error:
        checked.wrong.append(f"seq {checked.entries}: {error}")
    else:
        if checked.entries < stream.held:
            checked.wrong.append(f"seq {checked.entries}: missing, {stream.held} should be here")
        size = checked.entries
        told = None if stream.root is None else (stream.size, stream.root)
        if told is not None and told != (size, checked.roots.get(size)):
            checked.wrong.append(
                f"its {size} entries have another size or root than manifest.json says"
            )
    yield checked.entries % PROGRESS_ENTRIES


def _document(entry: Entry, report: Report) -> None:
    """What an entry says of who is who, and of whose word counts."""
    try:
        if entry.header.kind in KINDS:
            said = read(entry)
            report.acknowledged.add((said.name, said.signed(report.fleet).operator))
            return
        body: Any = body_as(entry, _DOCUMENTS[entry.header.kind])
        match body:
            case kinds.MachineOpen() | kinds.MachineRecorded():
                _record(report, body.record)
            case kinds.MachineRevoke():
                _revocation(report, body.revocation)
            case kinds.OperatorRecorded():
                report.operators.add(open_operator(body.record.encode(), report.fleet).operator)
            case kinds.OperatorEnd():
                open_end(body.end.encode(), report.fleet)
                report.ends.append(body.end.encode())
    except (Skip, Refused):
        # A document that does not hold counts for nothing, here as in the folds.
        return


def _record(report: Report, raw: str) -> None:
    record = open_record(raw.encode(), report.fleet)
    known = report.machines.get(record.machine)
    if known is None or known.serial < record.serial:
        report.machines[record.machine] = record


def _revocation(report: Report, raw: str) -> None:
    found = open_revocation(raw.encode(), report.fleet)
    report.revocations[raw] = None
    known = report.revoked.get(found.key)
    if known is None or known.issued_ms < found.issued_ms:
        report.revoked[found.key] = found


# --- signatures -----------------------------------------------------------------------------------


def _signatures(checked: Checked, report: Report) -> Iterator[str]:
    """Seals and cosigns against the machines' keys and the roots of the entries."""
    stream = checked.stream
    record = report.machines.get(stream.name.machine)
    if record is None:
        yield f"no record that the fleet signed names its machine {stream.name.machine}"
        return
    sealed = 0
    for head in stream.seals:
        try:
            seal = open_seal(head.note, report.fleet, record.key("seal"))
            if seal.stream != stream.name:
                raise Malformed(f"a seal of {seal.stream} lies here")
            _check_root(checked, head, seal.size, seal.root, "the seal of its writer")
            sealed = max(sealed, head.upto)
            if head.upto > stream.held and stream.name.machine == report.own:
                yield f"seq {stream.held}: missing, its own seal is over {seal.size} entries"
        except MusterError as error:
            yield f"seal at {head.upto}: {error}"
    if checked.entries == stream.held and sealed < stream.size:
        yield f"seq {sealed}: no seal of its writer covers it and what follows"
    for head in stream.cosigns:
        try:
            yield from _cosign(checked, head, report)
        except MusterError as error:
            yield f"cosign at {head.upto}: {error}"


def _cosign(checked: Checked, head: Head, report: Report) -> Iterator[str]:
    machine = peek_cosigner(head.note)
    record = report.machines.get(machine)
    if record is None:
        yield f"cosign at {head.upto}: {machine} is no machine of the fleet"
        return
    cosign = open_cosign(head.note, report.fleet, seen=record.key("seen"), held=record.key("held"))
    if cosign.stream != checked.stream.name:
        raise Malformed(f"a cosign of {cosign.stream} lies here")
    if cosign.size > checked.stream.held:
        # Of a stream we do not hold so far (or may not read): nothing here to compare it with.
        if checked.stream.name.machine == report.own:
            yield f"seq {checked.stream.held}: missing, {record.name} saw {cosign.size} entries"
        return
    _check_root(checked, head, cosign.size, cosign.root, f"the {cosign.strength} of {record.name}")
    # A revoked key may sign anything, so what it vouches for vouches for nothing.
    if machine != checked.stream.name.machine and machine not in report.revoked:
        checked.vouched = max(checked.vouched, cosign.size)


def _check_root(checked: Checked, head: Head, size: int, root: bytes, who: str) -> None:
    known = checked.roots.get(head.upto)
    if known is None:
        # Nothing to compare with: the stream is not held so far, or broke before.
        return
    if head.upto == size:
        if known != root:
            raise Malformed(f"the entries below seq {size} are not those of {who}")
    elif not tree.verify_consistency(head.upto, size, known, root, head.proof):
        raise Malformed(f"the entries below seq {head.upto} do not lead to {who} at {size}")


def _cut_back(evidence: bytes, report: Report) -> None:
    """Why a stream was cut back here: its machine was revoked, or its key forked it."""
    try:
        found = canon.decode(evidence, "the evidence", size_max=MESSAGE_BYTES_MAX)
        if isinstance(found, dict) and "revoked" in found:
            if found["revoked"] not in report.revoked:
                raise Malformed(f"nothing in the log revokes {found['revoked']}")
            return
        stream = stream_of(evidence)
        record = report.machines.get(stream.machine)
        if record is None:
            raise Malformed(f"no record names {stream.machine}")
        proof = open_fork(evidence, report.fleet, record.key("seal"))
        fork = name_of(kinds.Fork(proof.index, str(stream)))
        ends = ended(report.ends, report.fleet, report.revoked)
        counts = [each for each in report.operators if acknowledged(ends, each, fork)]
        is_closed = any((fork, each) in report.acknowledged for each in counts)
        report.forks.append(
            {"fork": fork, "stream": str(stream), "common": proof.index, "closed": is_closed}
        )
        if not is_closed:
            report.wrong.append(
                f"stream {stream}: seq {proof.index}: FORKED by its own machine's key; "
                "both branches are kept"
            )
    except Refused as error:
        report.wrong.append(f"the reason why a stream was cut back does not hold: {error}")
