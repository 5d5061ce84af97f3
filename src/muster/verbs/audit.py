"""`muster audit`: whether the log holds, why a task was done, and a copy for others to check.

Rule 1: verifying and exporting read the database beside the daemon and change nothing.
Rule 2: an export is complete in its folder, or not there.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Struct

from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.fleet.record import open_record
from muster.log import export
from muster.log.entry import parse
from muster.log.stream import FleetId, MachineId, fleet_id
from muster.log.tree import Range
from muster.node.parts import PARTS
from muster.node.verb import Line
from muster.verbs.client import Finding
from muster.verbs.declaration import Context, Nothing, Request, opt, pos, verb
from muster.verbs.log_source import Source, open_source
from muster.verbs.verify import Checked, Report, verify

NOT_WELL: Final = 1
# Below this nobody waits long enough to want to hear of it.
_PROGRESS_FROM: Final = 100_000
_WHAT: Final = ("explain", "export")
_LOG: Final = ("verify", "export")


class Action(Request, frozen=True):
    action: Annotated[
        Literal["verify", "explain", "export"], pos("verify, explain TASK or export FOLDER")
    ]
    what: Annotated[
        str,
        pos("the task id to explain, or the folder to write, not there yet", needed=_WHAT),
    ] = ""
    file: Annotated[
        str,
        opt("verify this database or exported folder instead of our own log", actions=_LOG),
    ] = ""
    fleet: Annotated[
        str, opt("the fleet it must be of (default: this machine's)", actions=_LOG)
    ] = ""


class StreamChecked(Struct, frozen=True):
    stream: str
    machine: str
    scope: str
    entries: int
    exposed: int
    ok: bool


class Verified(Struct, frozen=True):
    """What was found in a log; each of `wrong` is a sentence."""

    fleet: str
    machines: int
    entries: int
    withheld: int
    exposed: int
    forks: list[dict[str, Any]]
    wrong: list[str]
    streams: list[StreamChecked]


class Exported(Struct, frozen=True):
    """`closed` says that each cause of an entry is in the export, too."""

    export: str
    streams: int
    entries: int
    closed: bool


@verb("audit", auth="local", runs="client", group="What is true", harmless=True,
      on="many")  # fmt: skip
def audit(context: Context, ask: Action) -> Any:
    """Verify, explain or export what happened.

    muster audit verify
    muster audit explain 7d5e
    muster audit export ./evidence
    muster audit verify --on all
    """
    if ask.action == "explain":
        return {"explain": context.ask("explain", {"task": ask.what}, on=context.on)}
    if context.on and (ask.action == "export" or ask.file or ask.fleet):
        raise Refused(
            f"--on {context.on} is for `audit verify` of its own log and for `audit explain`: "
            "folders and files are those of the machine it is typed on"
        )
    if ask.action == "verify" and ask.what:
        # Another log than the one that was meant would be called whole.
        raise Malformed(
            f"`audit verify` looks at this machine's own log; for {ask.what[:60]!r} say "
            "`muster audit verify --file` and its name"
        )
    if context.on:
        found = context.ask("audit.report", {}, on=context.on)
        return Finding(found, NOT_WELL) if found["wrong"] else found
    if not ask.file:
        context.home.require()
    source = open_source(ask.file or context.home.database)
    fleet = _fleet(context, ask.fleet, source)
    if ask.action == "export":
        return _export(context, source, fleet, Path(ask.what))
    own = ""
    if not ask.file:
        facts = context.home.facts()
        own = open_record(str(facts["record"]).encode(), FleetId(str(facts["fleet"]))).machine
    answer = _answer(verify(source, fleet, _progress(context), own))
    return Finding(answer, NOT_WELL) if answer.wrong else answer


def _fleet(context: Context, named: str, source: Source) -> FleetId:
    """Whose log it must be: as named, else this machine's, else as it says itself."""
    if named:
        return fleet_id(named)
    if context.home.exists:
        return FleetId(str(context.home.facts()["fleet"]))
    found = source.fleet()
    if not found:
        raise NotFound("the log names no fleet: give its id with --fleet")
    context.say(f"taking its own word for the fleet: {found} - is it yours?")
    return fleet_id(found)


def _progress(context: Context) -> Any:
    shown = _PROGRESS_FROM

    def hear(done: int) -> None:
        nonlocal shown
        if done >= shown:
            context.say(f"{done} entries checked")
            shown = done + _PROGRESS_FROM

    return hear


def _answer(report: Report) -> Verified:
    names = {machine: record.name for machine, record in report.machines.items()}
    return Verified(
        fleet=report.fleet,
        machines=len(report.machines),
        entries=sum(each.entries for each in report.streams),
        withheld=sum(each.withheld for each in report.streams),
        exposed=sum(each.exposed for each in report.streams),
        forks=report.forks,
        wrong=report.findings(),
        streams=[
            StreamChecked(
                stream=str(each.stream.name),
                machine=names.get(each.stream.name.machine, ""),
                # With the names of machines in the place of their keys: `to.studio`.
                scope=".".join(
                    names.get(MachineId(word), word) for word in each.stream.name.scope.split(".")
                ),
                entries=each.entries,
                exposed=each.exposed,
                ok=not each.wrong,
            )
            for each in report.streams
        ],
    )


def _export(context: Context, source: Source, fleet: FleetId, folder: Path) -> Exported:
    """Write the format of docs/spec/log.md, section 8; everything is verified first."""
    if folder.exists():
        raise Conflict(f"{folder} exists; name a folder that is not there yet")
    if source.is_export:
        raise Malformed("an export is made from a database, not from another export")
    report = verify(source, fleet, _progress(context))
    if report.findings():
        raise Refused(f"the log does not hold: {report.findings()[0]}; see `muster audit verify`")
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        listed: list[export.Listed] = []
        ids, causes = set[str](), set[str]()
        for checked in report.streams:
            one = _write_stream(source, checked, unfinished, str(len(listed)), ids, causes)
            if one is not None:
                listed.append(one)
        raw = export.manifest(
            fleet,
            listed,
            [record.raw for record in report.machines.values()],
            [each.encode() for each in report.revocations],
            closed=causes <= ids,
        )
        (unfinished / export.MANIFEST).write_bytes(raw)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    entries = sum(each.size for each in listed)
    return Exported(str(folder.absolute()), len(listed), entries, causes <= ids)


def _write_stream(  # noqa: PLR0917 - two of them are what all streams fill together
    source: Source,
    checked: Checked,
    folder: Path,
    file: str,
    ids: set[str],
    causes: set[str],
) -> export.Listed | None:
    """The three files of a stream, up to its newest seal; None where there is nothing to show."""
    stream = checked.stream
    seals = [h for h in stream.seals if not h.proof and h.upto <= stream.size]
    size = max((head.upto for head in seals), default=0)
    if size == 0:
        return None
    grown = Range()
    with open(folder / f"{file}.jsonl", "wb") as out:
        for seq, (header, salt, body) in enumerate(source.rows(stream)):
            if seq == size:
                break
            entry = parse(header, salt, body)
            grown.append(entry.id)
            ids.add(entry.id.hex())
            causes.update(entry.header.cause)
            out.write(export.line(entry))
    (folder / f"{file}.seals").write_bytes(b"".join(head.note for head in seals))
    cosigns = b"".join(head.note for head in stream.cosigns if head.upto <= size)
    (folder / f"{file}.cosigns").write_bytes(cosigns)
    return export.Listed(file, stream.name, size, grown.root())


class Rebuilt(Struct, frozen=True):
    entries: int
    skipped: int


@verb(
    "rebuild", auth="local", runs="client", group="What is true",
    says=(
        Line("Every table was folded anew from {entries} entries.", "!skipped"),
        Line("Every table was folded anew from {entries} entries; {skipped} could not be used, as "
             "before.", "skipped"),
    ),
)  # fmt: skip
def rebuild(context: Context, ask: Nothing) -> Rebuilt:
    """Fold every table anew from the log.

    The daemon must be down, for one program writes at a time.

        muster rebuild    # after `muster down`
    """
    from muster.node.host import lock, owner  # noqa: PLC0415 - with it the core is loaded
    from muster.node.installation import Installation  # noqa: PLC0415 - as above

    home = context.home
    home.require()
    owner.require_own(home.path, "rebuild")
    if context.running():
        raise Conflict("the daemon is running: stop it first with `muster down`")
    with lock.held(home.lock):
        machine = Installation(home, PARTS)
        try:
            done, hear = 0, _progress(context)
            for done, _total in machine.store.rebuild():
                hear(done)
            skipped = len(machine.store.tables.skipped())
        finally:
            machine.close()
    return Rebuilt(done, skipped)
