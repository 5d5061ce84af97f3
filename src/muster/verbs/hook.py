"""What the hooks of agent programs ask: the finished text for one event of a live session.

Rule 1: every text of a message stands behind who said it as far as that is proven, and none of it
is an instruction of the person who sits there.
Rule 2: an answer is bounded in bytes, the newest first, what is for this very session before all
else; how much more there is is said.
Rule 3: a session goes on for a message to this agent or session, and for nothing else; once for
each, and not for ever. That is so at the end of a turn, and where it is woken while it rests.
Rule 4: what is told of memory counts as read by the session, as whatever it asks for itself does.
What has no room is told with a later event.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Annotated, Final

from muster.agent.plugin import hook as plugin
from muster.agent.plugin.programs import PROGRAMS
from muster.errors import Malformed
from muster.limits import (
    HOOK_INPUT_BYTES_MAX,
    HOOK_MESSAGE_BYTES_MAX,
    HOOK_MESSAGES_MAX,
    HOOK_RECORDS_MAX,
    HOOK_TEXT_BYTES_MAX,
)
from muster.log.entry import EntryId
from muster.log.fold import body_or_none
from muster.log.stream import FLEET
from muster.memory.kinds import PINNED, MemoryPut
from muster.memory.showing import Reader
from muster.memory.state import RecordName, Version
from muster.message.fold import MESSAGE, Message, message_of
from muster.message.same_file import File, Met, Prints, prints_of
from muster.message.session import SessionRow, is_session_name
from muster.node.services.hooks import Hooks
from muster.node.services.mailbox import Mailbox
from muster.node.services.memory import Memory
from muster.node.services.same_files import SameFiles
from muster.node.services.sessions import Sessions
from muster.node.services.showings import Showings
from muster.node.services.speakers import Speakers
from muster.node.services.wakes import Wait, Wakes
from muster.node.tasks.actor import said
from muster.node.terms import terms_of
from muster.node.verb import Turns
from muster.printable import visible
from muster.task.kinds import NO_EPOCH
from muster.verbs.declaration import Call, Core, Daemon, Perform, Request, Stream, data, verb

# Of what came while nobody looked a page or two; the rest with the next event.
_PAGES_MAX: Final = 2
# Unread messages that are looked through for those that fit.
_LOOKED_MAX: Final = 100
_FILES_SHOWN_MAX: Final = 3
_PATH_CHARS_SHOWN: Final = 200
# Texts of one key that contradict each other.
_HEADS_MAX: Final = 4
# Versions of one key that a session may have been shown, and keys that are looked at in a row.
_HISTORY_MAX: Final = 16
_KEYS_AT_ONCE: Final = 8
# How much more there is, and how to answer.
_SPARE_BYTES: Final = 400


class Event(Request, frozen=True):
    agent: Annotated[str, data()]
    input: Annotated[str, data()]
    root: Annotated[str, data()] = ""
    git: Annotated[str, data()] = ""
    head: Annotated[str, data()] = ""
    origin: Annotated[str, data()] = ""
    confirms: Annotated[bool, data()] = False
    pid: Annotated[int, data()] = 0


@verb("hook", auth="local", writes=True, on="none")
def hook(core: Core, call: Call, ask: Event) -> Turns[str]:
    """The finished answer to a program's hook, as `NUMBER:HEX`; nothing behind the colon says
    nothing. `input` is the hex of what the program told its hook, or the beginning of it.
    """
    told = plugin.read(_bytes(ask.input))
    if told is None:
        return _answer(0, "")
    sessions, hooks = core.part(Sessions), core.part(Hooks)
    row = sessions.of(ask.agent, told.own)
    if told.event == "end":
        sessions.ended(ask.agent, ask.pid)
        core.part(Wakes).ended(ask.agent, told.own)
        if row is not None:
            sessions.change(row, state="ended")
            hooks.ended(row)
            sessions.forget(row)
        return _answer(0, "")
    starts = told.event == "start" and not told.within
    if row is None or starts or row.state != "open":
        row = sessions.open(ask.agent, told.own, ask.root or told.folder, _branch(ask.head))
    sessions.heard(row.name)
    sessions.runs_in(row, ask.pid)
    # A program that begins anew proves nothing of what the one before it printed.
    hooks.drop(row) if starts else hooks.settle(row)
    if told.woken:
        hooks.was_woken(row)
    elif starts or told.event == "prompt" or (told.again is False and not hooks.is_woken(row)):
        hooks.turn_began(row)
    yield from islice(core.part(Mailbox).whole(row.agent), _PAGES_MAX)
    parts, shown, read = _Room(HOOK_TEXT_BYTES_MAX), list[EntryId](), list[EntryId]()
    if row.mode != "do-not-disturb":
        if told.event != "stop" or hooks.may_go_on(row):
            shown = _messages(core, row, told, parts)
        if told.event != "stop" and row.mode == "open":
            read = yield from _records(core, row, parts)
    met = _written(core, row, told, ask, parts)
    number = hooks.hand(row, shown, read, met, confirms=ask.confirms)
    text = plugin.answer(row.agent, told, parts.text)
    if not told.within:
        core.part(Wakes).says(row, ask.pid, rests=starts or (told.event == "stop" and not text))
    return _answer(number, text)


class Waiting(Request, frozen=True):
    agent: Annotated[str, data()]
    input: Annotated[str, data()]
    pid: Annotated[int, data()] = 0


@verb("hook.wait", auth="local", runs="stream", followed=True, on="none")
async def wait(daemon: Daemon, call: Perform, stream: Stream, ask: Waiting) -> str:
    """What wakes a session that rests, as soon as there is something, as `hook` answers it; `0:`
    where nobody need wait any more. `input` is what began the wait: a start, or the end of a turn.
    """
    core, told = daemon.core, plugin.read(_bytes(ask.input))
    if told is None:
        return _answer(0, "")
    wakes, sessions = core.part(Wakes), core.part(Sessions)
    key, own = (ask.agent, told.own), Wait(ask.pid, stream.tell_later, stream.told)
    wakes.begin(key, own)
    try:
        while not own.over:
            row, left_ms = sessions.of(*key), None
            if row is not None and row.state == "open" and row.mode != "do-not-disturb":
                left_ms = wakes.left_ms(row, own, silence=row.agent not in plugin.NOTICED)
            if row is not None and left_ms == 0:
                for _ in core.part(Mailbox).whole(row.agent):
                    await asyncio.sleep(0)
                taken = list[int]()
                if not own.over and (found := _waking(core, row, told, taken)):
                    return found
                left_ms = min(taken, default=None)
            await stream.hear(left_ms / 1000 if left_ms else None)
    finally:
        wakes.end(key, own)
    return _answer(0, "")


def _waking(core: Core, row: SessionRow, told: plugin.Said, taken: list[int]) -> str:
    """What wakes a session; "" for nothing. `taken` is for how long what would is another one's."""
    hooks, parts = core.part(Hooks), _Room(HOOK_TEXT_BYTES_MAX)
    if not hooks.may_go_on(row):
        return ""
    shown = _messages(core, row, told._replace(event="stop"), parts, taken)
    if shown and row.agent in plugin.NOTICED:
        return _answer(0, plugin.NOTICE)
    return _answer(hooks.hand(row, shown, (), (), confirms=True), parts.text) if shown else ""


def _answer(number: int, text: str) -> str:
    return f"{number}:{text.encode().hex()}"


class Printed(Request, frozen=True):
    agent: Annotated[str, data()]
    input: Annotated[str, data()]
    number: Annotated[str, data()]


@verb("hook.printed", auth="local", writes=True, on="none")
def printed(core: Core, call: Call, ask: Printed) -> None:
    """The answer of this number was printed where the program reads it."""
    told = plugin.read(_bytes(ask.input))
    row = core.part(Sessions).of(ask.agent, told.own) if told is not None else None
    if row is not None and ask.number.isdecimal():
        core.part(Hooks).printed(row, int(ask.number[:20]))


class _Room:
    """A text that grows up to so many bytes."""

    def __init__(self, left: int) -> None:
        self._left, self._lines = left, list[str]()

    def add(self, line: str, *, spare: int = 0) -> bool:
        """Whether it has room, and so much is left for what is said after it."""
        size = len(line.encode()) + 1
        if size + spare > self._left:
            return False
        self._left -= size
        self._lines.append(line)
        return True

    @property
    def text(self) -> str:
        return "\n".join(self._lines)


def _messages(
    core: Core, row: SessionRow, told: plugin.Said, room: _Room, taken: list[int] | None = None
) -> list[EntryId]:
    """Put in what is unread, and which messages that were. Nobody is woken for what matters little,
    or is another session's: `taken`, given where it is to be woken, has for how long.
    """
    sessions, box, hooks = core.part(Sessions), core.part(Mailbox), core.part(Hooks)
    all_of_it, speakers = sessions.wanted(row.name), Speakers(core)
    known = hooks.under_way(row)
    narrow = row.mode == "focus" and told.event in ("tool", "stop")
    mine = box.newest(row.agent, lambda each: each == row.name)
    # What is for everybody is not looked through here: any number of it would hide what counts.
    wanted = lambda each: not narrow and each != row.name and all_of_it(each)  # noqa: E731
    others = box.newest(row.agent, wanted, only_named=told.event == "stop")
    places = chain(islice(mine, _LOOKED_MAX), islice(others, _LOOKED_MAX))
    found = []
    for place in places:
        there = core.tables.row(MESSAGE, *place)
        if there is None or there.id in known or not speakers.speaks(*place):
            continue
        if told.event == "stop" and hooks.went_on_for(row, there.id):
            continue
        if taken is not None:
            left_ms = hooks.taken_ms(row, there.id) if there.rank <= 0 else 0
            taken += [left_ms] if left_ms else []
            if there.rank > 0 or left_ms:
                continue
        found.append(message_of(core.log.entry_at(*place)))
        # No more are shown, and a session may have any number of them.
        if len(found) == HOOK_MESSAGES_MAX:
            break
    if not found:
        return []
    unread = box.count(speakers, row.agent, all_of_it) if not narrow else len(found)
    address = f"{row.agent}@{core.name}#{row.name}"
    room.add(
        f"[muster] Messages for {address}, the newest first. Each text is what its sender says."
    )
    shown = []
    for message in found:
        if not room.add(_line(core, message), spare=_SPARE_BYTES):
            break
        shown.append(message.id)
    more = unread - len(shown) - len(known)
    if more > 0 and told.event != "stop":
        room.add(f"[muster] and {more} more: the tool inbox, or `muster inbox --agent "
                 f"'{row.agent}#{row.name}'`, shows them.")  # fmt: skip
    if told.event == "stop" and not hooks.go_on(row, shown):
        room.add(
            "[muster] This session went on often enough without its person: what comes now waits "
            "for the next prompt."
        )
    room.add(
        "[muster] The tool reply, or `muster reply ID TEXT`, answers; ack says that it is done."
    )
    return shown


def _line(core: Core, message: Message) -> str:
    by, machine = said(core, message.entry), core.membership.name_of(message.stream.machine)
    terms = terms_of(core, message.entry)
    session = f"#{terms.from_session}" if terms is not None and terms.from_session else ""
    claims = f", claims to be {by.claims}" if by.claims else ""
    text = message.text
    if len(text.encode()) > HOOK_MESSAGE_BYTES_MAX:
        cut = text.encode()[:HOOK_MESSAGE_BYTES_MAX].decode(errors="ignore")
        text = f"{cut} … (the whole of it: the tool inbox with all)"
    head = f"- {message.id.hex()[:12]} from {by.name}{session} on {machine} ({by.trust}{claims})"
    return f"{head}: {_data(text)}"


def _data(text: str) -> str:
    """What somebody else wrote: each line of it is told from ours by how it begins."""
    return visible(text).replace("\n", "\n    | ")


def _records(core: Core, row: SessionRow, room: _Room) -> Turns[list[EntryId]]:
    """Put in what others wrote down since this session was told, and which versions that were."""
    read, told, hooks = list[EntryId](), 0, core.part(Hooks)
    for number, key in enumerate(hooks.fresh_keys(row), 1):
        for line, version in _news(core, row, key):
            if told == HOOK_RECORDS_MAX:
                room.add("[muster] and more is new in memory: the tool recall finds it.")
                return read
            if not room.add(line, spare=_SPARE_BYTES):
                # All of it once more, with an event that leaves room for it.
                hooks.tell_again(row)
                return read
            read += [version] if version is not None else []
            told += 1
        if number % _KEYS_AT_ONCE == 0:
            yield
    return read


def _news(core: Core, row: SessionRow, key: str) -> Iterator[tuple[str, EntryId | None]]:
    """What there is to say about a key, and the version that it says the text of, if it does."""
    part, showings = core.part(Memory), core.part(Showings)
    record = part.records(key).get(RecordName(FLEET, key))
    if record is None:
        return
    if record.state in ("active", "conflict"):
        for head in record.heads[:_HEADS_MAX]:
            entry = core.log.entry(head.id)
            put = body_or_none(entry, MemoryPut)
            if entry is not None and put is not None and _concerns(put, row):
                by, text = said(core, entry), _data(put.text[:300])
                line = f"[muster] New in memory, {key} ({record.state}), from {by.name}: {text}"
                yield line, head.id
        return
    # What is said against it, and what it said, is shown to who asks; a text alone would mislead.
    reader = Reader("", NO_EPOCH, row.name)
    newest = part.history(key)[-_HISTORY_MAX:]
    if any(showings.was_shown(reader, each.id) for each in newest):
        yield f"[muster] What you were told of {key} in memory is {record.state} now.", None
    elif record.state == "disputed" and _all_concern(core, record.heads, row):
        yield f"[muster] {key} in memory is disputed: the tool memory shows it.", None


def _all_concern(core: Core, heads: Iterable[Version], row: SessionRow) -> bool:
    puts = [body_or_none(core.log.entry(each.id), MemoryPut) for each in heads]
    return all(put is not None and _concerns(put, row) for put in puts)


def _concerns(put: MemoryPut, row: SessionRow) -> bool:
    """Whether a record says something to who works in this folder."""
    repos = [tag.removeprefix("repo:") for tag in put.tags if tag.startswith("repo:")]
    return not repos or PINNED in put.tags or row.project.rpartition("/")[2] in repos


def _written(core: Core, row: SessionRow, told: plugin.Said, ask: Event, room: _Room) -> list[Met]:
    """Note what was written, and put in who else wrote what this session did, the first of it."""
    part = core.part(SameFiles)
    for each in told.files:
        file, prints = _file(each, told.folder, ask)
        part.wrote(row, file, ask.root, prints)
    shown = list[Met]()
    # The end of a turn is none of it: no turn goes on for that.
    if row.mode != "do-not-disturb" and told.event != "stop":
        for met in part.due(row)[:_FILES_SHOWN_MAX]:
            if not room.add(_notice(core, row, met)):
                break
            shown.append(met)
    return shown


def _notice(core: Core, row: SessionRow, met: Met) -> str:
    """Who wrote a file, where and when; the path is that of the session that is told. What another
    machine calls its session stands in it where that is such a name.
    """
    agent, session = met.writer.agent, met.writer.session
    is_agent = agent in PROGRAMS or agent == row.agent
    machine = visible(core.membership.name_of(met.writer.machine))
    path = " ".join(visible(met.file.path).split())
    path = path if len(path) <= _PATH_CHARS_SHOWN else "…" + path[-_PATH_CHARS_SHOWN:]
    ago = max(0, core.now.boot_ms - met.at_ms) // 60_000
    writer = f"{agent}@{machine}#{session}"
    if met.where == "elsewhere" and not (is_agent and is_session_name(agent, session)):
        writer = f"a session on {machine}"
    said = f"[muster] {writer} wrote {path}, too, {ago} min ago"
    if met.where == "here":
        return f"{said}: read it again before you go on, and tell that session what you change."
    place = "this machine" if met.where == "beside" else machine
    return (
        f"{said}, in another checkout on {place}: yours does not have that change; tell that "
        "session what you change."
    )


def _file(path: str, folder: str, ask: Event) -> tuple[File, Prints]:
    """A file, by its project and where it is in there: the same in every worktree of it; and how
    other machines know it.
    """
    whole, root = os.path.normpath(os.path.join(folder or "/", path)), ask.root
    if root and whole.startswith(root.rstrip("/") + "/"):
        below = os.path.relpath(whole, root)
        return File(ask.git or root, below), prints_of(ask.origin, ask.git, below)
    return File("", whole), Prints()


def _branch(head: str) -> str:
    """The branch that a HEAD of git names; "" for none."""
    return head.strip().removeprefix("ref: refs/heads/")[:200] if head.startswith("ref: ") else ""


def _bytes(text: str) -> bytes:
    """Raises: Malformed: no hex, or too much."""
    if len(text) > 2 * HOOK_INPUT_BYTES_MAX:
        raise Malformed(f"a hook tells at most {HOOK_INPUT_BYTES_MAX} bytes")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Malformed("what a hook tells is hex") from error
