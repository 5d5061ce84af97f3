"""`muster cp`: a file to another machine, or from one, over a stream that goes on where it ended.

Rule 1: the order names the folder that a grant names; who orders everything names the whole disk.
Rule 2: what comes here is placed as it is there: whole, by its digest, over a file beside it.
"""

import contextlib
import hashlib
import json
import os
import stat
from typing import Any, Final, TypeVar

from muster import umask
from muster.channel import strand
from muster.channel.ipc_client import Client
from muster.cli.context import CommandContext, signing
from muster.cli.strands import Strands
from muster.cli.text import clean
from muster.errors import Conflict, Denied, Forged, Malformed, NotFound, Refused, Unreachable
from muster.limits import INT_ABS_MAX
from muster.node.host import clock, within

T = TypeVar("T")

_HASHED_BYTES: Final = 1024 * 1024
# Often enough for a person, seldom enough for a page of it.
TOLD_EVERY_MS: Final = 2_000
ORDERS: Final = {"read": "file.read", "write": "file.write"}


class Progress:
    """Tells a person at a terminal how far a file is, now and then."""

    def __init__(self, context: CommandContext, name: str, size: int) -> None:
        self._context, self._name, self._size = context, clean(name), size
        self._told_ms = clock.boot_ms()

    def reached(self, at: int) -> None:
        """So many bytes of it are there."""
        now_ms = clock.boot_ms()
        if now_ms - self._told_ms >= TOLD_EVERY_MS:
            self._told_ms = now_ms
            self._context.note(f"{self._name}: {100 * at // max(1, self._size)} %")


def copy(context: CommandContext) -> int:
    """Copy what is meant, and say how it went; 0."""
    meant, _ = context.inside()
    if "." in meant["machine"]:
        return _leave(context, meant)
    verb = ORDERS[meant["way"]]
    to = context.ask("target", {"verb": verb, "on": meant["machine"]})
    root, path = below(context, verb, to["name"], meant["far"])
    args: dict[str, Any] = {"place": f"{to['machine']}:{root}", "path": path}
    if context.command.args.get("plan"):
        plan = {"verb": verb, "machine": to["name"], "folder": root, "path": path}
        said = f"{verb} would be ordered of {to['name']}: {path} below {root}; nothing was sent"
        context.show({"plan": plan} if context.json else said)
        return 0
    try:
        if meant["way"] == "read":
            done = fetch(
                context, to["machine"], args, *os.path.split(os.path.abspath(meant["near"]))
            )
        else:
            opened = _opened_here(context, meant["near"])
            done = bring(context, to["machine"], args, meant["near"], opened)
    except KeyboardInterrupt:
        context.say("given up; the same command goes on where this one ended")
        raise
    shown = meant["near"] if meant["way"] == "read" else f"{to['name']}:{meant['far']}"
    context.show({"path": shown, **done})
    return 0


def _leave(context: CommandContext, meant: dict[str, Any]) -> int:
    """Leave a file with a machine of another fleet, and say how it went; 0."""
    to, path = meant["machine"], meant["far"]
    if context.command.args.get("plan"):
        context.show(f"{meant['near']} would be left with {to} as {path}; nothing was sent")
        return 0
    args = {"to": to, "path": path, "source": os.path.abspath(meant["near"])}
    try:
        done = context.ask("peer.put", args)
    except KeyboardInterrupt:
        context.say("it goes on; the same command says how it ended")
        raise
    context.show(done)
    return 0


def below(context: CommandContext, verb: str, name: str, path: str) -> tuple[str, str]:
    """The folder that the order is for, and the path below that."""
    key = signing().signer(verb).public.hex()
    above, _, last = path.rpartition("/")
    if not last:
        raise Malformed(f"{path[:80]!r} is a folder: name the file")
    held = {
        each["object"].partition(":")[2]
        for each in context.ask("grants", {})["grants"]
        if (each["to"], each["verb"]) == (key, verb) and each["object"].startswith(f"{name}:")
    }
    fitting = [each for each in held if path.startswith(each.rstrip("/") + "/")]
    if fitting:
        root = max(fitting, key=len)
    else:
        orders = [each["key"] for each in context.ask("operators", {}) if each["state"] == "orders"]
        whole = "~" if path.startswith("~") else "/"
        # A grant for this folder would do, and the refusal says so.
        is_word = all("!" <= mark <= "~" for mark in above)
        root = whole if key in orders or not is_word else above or whole
    return root, path.removeprefix(root.rstrip("/")).lstrip("/")


def _said(value: Any, name: str, sort: type[T]) -> T:
    """What the far end says of a file. Raises: Malformed where it does not."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, sort) or (isinstance(found, int) and found < 0):
        raise Malformed("the far machine says nothing that can be read of the file")
    return found


def fetch(
    context: CommandContext,
    on: str,
    args: dict[str, Any],
    folder: str,
    name: str,
    *,
    make: bool = False,
) -> dict[str, Any]:
    """Bring a file here, as `name` below the folder. Raises: Forged where it is not what is there.

    `make`: it is one of a folder; those between are made, and one that is there already stays.
    """
    near = os.path.join(folder, name)
    key = f"{args['place']}\n{args['path']}"
    with (
        within.spot(folder, name, person="/", shut=(), make=make) as spot,
        within.Part(spot, key) as part,
        contextlib.ExitStack() as stack,
    ):
        at = part.resume(INT_ABS_MAX)
        client, told = _opened(context, on, args, part, stack)
        size, mode = _said(told, "size", int), _said(told, "mode", int)
        end: Any = None
        progress = Progress(context, name, size)
        for strand_name, piece in Strands(client).to_the_end():
            if strand_name == strand.END:
                # An end without a form names no size: the comparison below refuses it.
                with contextlib.suppress(ValueError):
                    end = json.loads(piece)
            elif part.size + len(piece) > size:
                raise Forged(f"more came than there is of {near}: copy it again")
            else:
                part.write(piece)
                progress.reached(part.size)
        if (part.size, part.digest) != (_said(end, "size", int), _said(end, "sha256", str)):
            part.discard()
            raise Forged(f"what came is not what is there, and was removed: copy {near} again")
        part.place(mode & 0o777 & ~umask.of_attempts())
        return {"size": part.size, "sha256": part.digest, "at": min(at, part.size)}


def _opened(
    context: CommandContext, on: str, args: dict[str, Any], part: within.Part,
    stack: contextlib.ExitStack,
) -> tuple[Client, dict[str, Any]]:  # fmt: skip
    """The stream from where the part ends on; from the beginning where that is of another file."""
    try:
        opened = context.stream_of("file.read", {**args, "at": part.size}, on)
        return stack.enter_context(opened)
    except Conflict:
        part.begin()
        return stack.enter_context(context.stream_of("file.read", {**args, "at": 0}, on))


def _opened_here(context: CommandContext, near: str) -> int:
    """A descriptor of the plain file that a person named. Raises: NotFound, Refused, Denied."""
    if within.is_in(os.path.realpath(near), os.path.realpath(context.home.path)):
        raise Denied(f"{near} is in Muster's own home, which holds its keys: it is never copied")
    try:
        opened = os.open(near, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"there is no {near} here") from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise Refused(f"{near} is no plain file: folders, pipes and devices are not copied")
    return opened


def bring(
    context: CommandContext, on: str, args: dict[str, Any], near: str, opened: int
) -> dict[str, Any]:
    """Bring a file there, and close it. Raises: Refused, Forged as the far end does."""
    with os.fdopen(opened, "rb") as file:
        mode, known = os.fstat(opened).st_mode, hashlib.sha256()
        while data := file.read(_HASHED_BYTES):
            known.update(data)
        size, digest = file.tell(), known.hexdigest()
        ordered = {**args, "size": size, "sha256": digest, "mode": mode & 0o777}
        with context.stream_of("file.write", ordered, on) as (client, told):
            at, far = min(_said(told, "at", int), size), Strands(client)
            file.seek(at)
            left, progress = True, Progress(context, os.path.basename(near), size)
            # What is said between two pieces is credit; then how it ended.
            while left and far.is_open:
                far.hear(0 if far.room else None)
                if far.room and far.is_open:
                    left = bool(data := file.read(far.room))
                    far.put(strand.INPUT, data)
                    progress.reached(file.tell())
            end = [piece for name, piece in far.to_the_end() if name == strand.END]
    if not end:
        raise Unreachable("how it ended there is not known: give the same command again")
    return {"size": size, "sha256": digest, "at": at}
