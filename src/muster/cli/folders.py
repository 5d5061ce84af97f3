"""`muster cp -r`: all plain files of a folder, to another machine or from one.

Rule 1: each file is a copy of its own, with its order and its digest: a cut costs what was still to
come of the file under way, and the same command goes on there.
Rule 2: what is no plain file is named and passed over, and the exit code says so.
Rule 3: what the far machine says a folder holds is data: a path that would lead out is refused.
"""

import contextlib
import hashlib
import json
import os
from typing import Any

from muster.channel import strand
from muster.cli.context import CommandContext
from muster.cli.copies import ORDERS, below, bring, fetch
from muster.cli.strands import Strands
from muster.cli.text import clean
from muster.errors import (
    Conflict,
    Denied,
    Malformed,
    MusterError,
    NotFound,
    Refused,
    Unreachable,
    unable,
)
from muster.limits import CALL_BYTES_MAX
from muster.node.host import within
from muster.node.host.held import ENTRIES_MAX, Held, held


def copy(context: CommandContext) -> int:
    """Copy it, and say how it went; 0, 1 where something was passed over, else the worst code."""
    meant, _ = context.inside()
    verb = ORDERS[meant["way"]]
    to = context.ask("target", {"verb": verb, "on": meant["machine"]})
    way, near = meant["way"], os.path.abspath(meant["near"])
    # The folder itself may be what a grant names.
    root, inside = below(context, verb, to["name"], f"{meant['far']}/-")
    before, place = inside.removesuffix("-"), f"{to['machine']}:{root}"
    if context.command.args.get("plan"):
        plan = {"verb": verb, "machine": to["name"], "folder": root, "path": before.rstrip("/")}
        text = f"{verb} would be ordered of {to['name']}: each file of {before or '.'} below {root}"
        context.show({"plan": plan} if context.json else f"{text}; nothing was sent")
        return 0
    if way == "read":
        found = _there(context, to["machine"], {"place": place, "path": before.rstrip("/") or "."})
        os.makedirs(near, exist_ok=True)
    else:
        found = _here(near, str(context.home.path))
    names = [each.path for each in found if not each.passed]
    sizes = {each.path: each.size for each in found}
    passed = [{"path": each.path, "why": each.passed} for each in found if each.passed]
    size, same, worst, failed = 0, 0, 1 if passed else 0, list[dict[str, str]]()
    for number, name in enumerate(names):
        context.note(f"{number + 1} of {len(names)}: {clean(name)}")
        args = {"place": place, "path": before + name}
        try:
            if way == "read":
                done = _fetched(context, to["machine"], args, near, Held(name, sizes[name]))
            else:
                done = _brought(context, to["machine"], {**args, "make": True}, near, name)
        except Unreachable as error:
            whole = f"{number} of {len(names)} files are there"
            raise Unreachable(f"{error}; {whole}, the same command goes on") from error
        except Denied:
            # It would be the same with each.
            raise
        except KeyboardInterrupt:
            context.say("given up; the same command goes on where this one ended")
            raise
        except (MusterError, OSError) as error:
            found_out = unable(str(error), error) if isinstance(error, OSError) else error
            worst = max(worst, found_out.exit_code)
            failed.append({"path": name, "why": str(error)})
            continue
        size += done["size"]
        same += bool(done["size"]) and done["at"] == done["size"]
    for each in (*passed, *failed):
        context.say(f"not copied: {clean(each['path'])}: {each['why']}", whole=True)
    shown = meant["near"] if way == "read" else f"{to['name']}:{meant['far']}"
    files = len(names) - len(failed)
    said = {"path": shown, "files": files, "size": size, "same": same}
    context.show({**said, "passed": passed, "failed": failed})
    return worst


def _here(near: str, home: str) -> list[Held]:
    """What a folder here holds, but for Muster's own home."""
    folder, name = os.path.split(near)
    with within.spot(folder, name, person="/", shut=[home], follow=True) as at:
        return list(held(at, [home]))


def _brought(
    context: CommandContext, on: str, args: dict[str, Any], near: str, name: str
) -> dict[str, Any]:
    """One file of it, through no link that somebody put there since it was listed."""
    with within.spot(near, name, person="/", shut=[str(context.home.path)]) as at:
        opened = within.open_file(at)
    return bring(context, on, args, f"{near}/{name}", opened)


def _there(context: CommandContext, on: str, args: dict[str, Any]) -> list[Held]:
    """What a folder there holds. Raises: Malformed where that machine says something odd."""
    raw = bytearray()
    with context.stream_of("file.read", {**args, "names": True}, on) as (client, _):
        for name, piece in Strands(client).to_the_end():
            raw += piece if name == strand.OUTPUT else b""
            if len(raw) > 4 * CALL_BYTES_MAX:
                raise Malformed("the far machine names more than a folder may hold")
    try:
        lines = [json.loads(line) for line in raw.splitlines()[:ENTRIES_MAX]]
        return [Held(str(e["path"]), int(e["size"]), str(e["passed"])[:200]) for e in lines]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Malformed("the far machine says nothing readable of the folder") from error


def _fetched(
    context: CommandContext, on: str, args: dict[str, Any], near: str, file: Held
) -> dict[str, Any]:
    """One file of it, where it is not here already."""
    name, size = file.path, file.size
    # What is here has another form than a file: `fetch` says so, or replaces it.
    with contextlib.suppress(Conflict):
        if (digest := _digest(near, name, size)) and digest == _told(context, on, args, size):
            return {"size": size, "sha256": digest, "at": size}
    return fetch(context, on, args, near, name, make=True)


def _digest(near: str, name: str, size: int) -> str:
    """That of the file here, "" where there is none of this size."""
    try:
        with within.spot(near, name, person="/", shut=()) as at:
            file = within.open_file(at)
    except (NotFound, Refused):
        return ""
    with os.fdopen(file, "rb") as opened:
        known = os.fstat(file).st_size == size
        return hashlib.file_digest(opened, "sha256").hexdigest() if known else ""


def _told(context: CommandContext, on: str, args: dict[str, Any], size: int) -> str:
    """The digest of the file there, of which nothing but that comes."""
    with context.stream_of("file.read", {**args, "at": size}, on) as (client, _):
        ends = [piece for name, piece in Strands(client).to_the_end() if name == strand.END]
    return str(json.loads(ends[-1])["sha256"]) if ends else ""
