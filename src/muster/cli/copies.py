"""`muster cp`: a file to another machine, or from one, over a stream that goes on where it ended.

Rule 1: the order names the folder that a grant names; who orders everything names the whole disk.
Rule 2: what comes here is placed as it is there: whole, by its digest, over a file beside it.
"""

import contextlib
import hashlib
import json
import os
import select
import stat
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from muster import umask
from muster.channel import strand
from muster.channel.flow import CUT, TYPES, Flow
from muster.channel.frame import decode, encode
from muster.channel.ipc_client import Client
from muster.cli.call import CHANNEL
from muster.cli.context import CommandContext, signing
from muster.errors import Conflict, Forged, Malformed, Refused, Unreachable
from muster.limits import INT_ABS_MAX
from muster.node.host import within

T = TypeVar("T")

_HASHED_BYTES: Final = 1024 * 1024
_VERBS: Final = {"read": "file.read", "write": "file.write"}


def copy(context: CommandContext) -> int:
    """Copy what is meant, and say how it went; 0."""
    meant, _ = context.inside()
    verb = _VERBS[meant["way"]]
    to = context.ask("target", {"verb": verb, "on": meant["machine"]})
    root, path = _below(context, verb, to["name"], meant["far"])
    args: dict[str, Any] = {"place": f"{to['machine']}:{root}", "path": path}
    if context.command.args.get("plan"):
        plan = {"verb": verb, "machine": to["name"], "folder": root, "path": path}
        said = f"{verb} would be ordered of {to['name']}: {path} below {root}; nothing was sent"
        context.show({"plan": plan} if context.json else said)
        return 0
    try:
        if meant["way"] == "read":
            done = _fetch(context, to["machine"], args, meant["near"])
        else:
            done = _bring(context, to["machine"], args, meant["near"])
    except KeyboardInterrupt:
        context.say("given up; the same command goes on where this one ended")
        raise
    shown = meant["near"] if meant["way"] == "read" else f"{to['name']}:{meant['far']}"
    context.show({"path": shown, **done})
    return 0


def _below(context: CommandContext, verb: str, name: str, path: str) -> tuple[str, str]:
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


def _pieces(client: Client, flow: Flow) -> Iterator[tuple[int, bytes]]:
    """What the far end says, to its end. Raises: Refused with why it ended before."""
    pieces = strand.Splitter()
    while flow.closed is None:
        frame = decode(client.receive()) if select.select([client], [], []) else None
        if frame and frame.channel == CHANNEL and frame.type in TYPES:
            flow.feed(frame.type, frame.payload)
        yield from pieces.feed(flow.take())
        flow.give_back()
    if flow.closed:
        raise (Unreachable if flow.closed == CUT else Refused)(flow.closed)


def _flow(client: Client) -> Flow:
    return Flow(lambda kind, payload: client.send(encode(kind, CHANNEL, payload)))


def _said(value: Any, name: str, sort: type[T]) -> T:
    """What the far end says of a file. Raises: Malformed where it does not."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, sort) or (isinstance(found, int) and found < 0):
        raise Malformed("the far machine says nothing that can be read of the file")
    return found


def _fetch(context: CommandContext, on: str, args: dict[str, Any], near: str) -> dict[str, Any]:
    """Bring a file here. Raises: Forged where what came is not what is there."""
    folder, name = os.path.split(os.path.abspath(near))
    key = f"{args['place']}\n{args['path']}"
    with (
        within.spot(folder, name, person="/", shut=()) as spot,
        within.Part(spot, key) as part,
        contextlib.ExitStack() as stack,
    ):
        at = part.resume(INT_ABS_MAX)
        client, told = _opened(context, on, args, part, stack)
        size, mode = _said(told, "size", int), _said(told, "mode", int)
        end: Any = None
        for strand_name, piece in _pieces(client, _flow(client)):
            if strand_name == strand.END:
                with contextlib.suppress(ValueError):
                    end = json.loads(piece)
            elif part.size + len(piece) > size:
                raise Forged(f"more came than there is of {near}: copy it again")
            else:
                part.write(piece)
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


def _bring(context: CommandContext, on: str, args: dict[str, Any], near: str) -> dict[str, Any]:
    """Bring a file there. Raises: Refused, Forged as the far end does."""
    opened = os.open(near, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(opened).st_mode
    if not stat.S_ISREG(mode):
        os.close(opened)
        raise Refused(f"{near} is no plain file: folders, pipes and devices are not copied")
    with os.fdopen(opened, "rb") as file:
        known = hashlib.sha256()
        while data := file.read(_HASHED_BYTES):
            known.update(data)
        size, digest = file.tell(), known.hexdigest()
        ordered = {**args, "size": size, "sha256": digest, "mode": mode & 0o777}
        with context.stream_of("file.write", ordered, on) as (client, told):
            at, flow = min(_said(told, "at", int), size), _flow(client)
            file.seek(at)
            left = True
            # What is said between two pieces is credit; then how it ended.
            while left and flow.closed is None:
                room = min(flow.room, strand.PIECE_BYTES_MAX) - strand.HEAD_BYTES
                while select.select([client], [], [], 0 if room > 0 else None)[0]:
                    frame = decode(client.receive())
                    if frame.channel == CHANNEL and frame.type in TYPES:
                        flow.feed(frame.type, frame.payload)
                    break
                if room > 0 and flow.closed is None:
                    left = bool(data := file.read(room))
                    flow.put(strand.pack(strand.INPUT, data))
            end = [piece for name, piece in _pieces(client, flow) if name == strand.END]
    if not end:
        raise Unreachable("how it ended there is not known: give the same command again")
    return {"size": size, "sha256": digest, "at": at}
