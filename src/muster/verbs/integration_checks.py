"""What doctor looks at in the agent programs that Muster was put into.

Rule: what a program would do is done: its hook is run, and its end of the door is asked to begin.
Both are told nothing that would come into a session; the session that is opened for it is gone
when it is over.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from muster.agent.plugin.edit import put
from muster.agent.plugin.place import Place
from muster.agent.plugin.programs import PROGRAMS
from muster.errors import MusterError
from muster.verbs.checks import Check, tried
from muster.verbs.declaration import Context
from muster.verbs.installed import Record, place_of, read_file, read_record

# A door that has to start first takes some seconds on a busy machine.
_ANSWER_S: Final = 20.0
_OWN: Final = "doctor"
_HELLO: Final = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {},
               "clientInfo": {"name": "muster doctor", "version": "1"}},
}  # fmt: skip


def of_programs(context: Context, *, runs: bool) -> Iterator[Check]:
    """A line for each program that Muster is in; `runs`: the daemon can be asked."""
    for name in PROGRAMS:
        place = place_of(context.home, name, None)
        if place.own.is_dir():
            look = partial(_of_program, context, name, place, runs)
            yield from tried(f"program {name}", _mend(name), look)


def _mend(name: str) -> str:
    return f"`muster install {name}` mends it; `muster uninstall {name}` takes it out"


def _of_program(context: Context, name: str, place: Place, runs: bool) -> Iterator[Check]:
    record, known, mend = read_record(place.own), PROGRAMS[name], _mend(name)
    what, project = f"program {name}", Path(record.project) if record.project else None
    if not record.files:
        return
    changed = [file for file, each in record.files.items() if not _stands(file, record)]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        text = f"what Muster put into {known.title} is not there any more: {changed[0]}{more}"
        yield Check(what, "wrong", text, mend)
        return
    files = set(record.files)
    hooks = [each for each in (place.hook, place.waiting) if str(each) in files]
    failed = next(filter(None, (_hook_fails(record.python, each) for each in hooks)), "")
    if failed:
        yield Check(what, "wrong", f"the hook in {known.title} does not run: {failed}", mend)
        return
    wanted = {str(edit.path) for edit in known.edits(place_of(context.home, name, project))}
    if wanted - files:
        text = (
            f"another version of Muster was put into {known.title}: that knows less than this one"
        )
        yield Check(what, "note", text, mend)
    if not runs:
        text = f"{known.title} has its hook and its tools; they answer when the daemon runs"
        yield Check(what, "note", text, "muster up --detach")
        return
    failed = _tools_fail(context, name, record.python, place)
    if failed:
        text = f"the hook in {known.title} runs, and its tools do not answer: {failed}"
        yield Check(what, "wrong", text, "mend what it names; then start the program anew")
        return
    yield Check(what, "ok", f"{known.title}: the hook runs, and the tools answer")


def _stands(file: str, record: Record) -> bool:
    """Whether what is ours is in a file, whatever else is."""
    each = record.files[file]
    try:
        now = read_file(each.edit.path)
        return now is not None and put(each.edit, now) == now
    except MusterError:
        return False


def _hook_fails(python: str, hook: Path) -> str:
    """Why a hook does not run; "" where it does. It is told of no event."""
    try:
        done = subprocess.run(
            [python, "-I", "-S", str(hook)], input="{}", capture_output=True, text=True,
            timeout=_ANSWER_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else said[-1][:200] if said else f"exit {done.returncode}"


def _tools_fail(context: Context, name: str, python: str, place: Place) -> str:
    """Why the tools do not answer; "" where they do."""
    argv = [*place.server(name)["args"], _OWN]
    hello = json.dumps(_HELLO) + "\n"
    try:
        # It ends when it has answered what it was told.
        done = subprocess.run(
            [python, *argv], input=hello, capture_output=True, text=True, timeout=_ANSWER_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        _close(context, name)
    answers = [_object(line) for line in done.stdout.splitlines()]
    if any("result" in each for each in answers):
        return ""
    errors = [str(each["error"].get("message")) for each in answers if "error" in each]
    said = done.stderr.strip().splitlines()
    return (errors or said or ["it said nothing"])[-1][:300]


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _close(context: Context, name: str) -> None:
    """The session that the look opened is gone."""
    # The look itself has its answer; a session that stays is listed, and closes by its age.
    with contextlib.suppress(MusterError):
        opened = context.ask("session.open", {"agent": name, "own": _OWN})
        context.ask("session.close", {"session": opened["session"], "gone": True})
