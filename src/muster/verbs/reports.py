"""What `muster doctor` and `muster audit` find on the machine that is asked, for other machines.

Rule: it is what a person would be shown who types it there: the daemon starts the command itself,
for these look at files and programs and take their time, and nothing here does it a second time.
"""

import asyncio
import contextlib
import json
import os
import sys
from typing import Any, Final, TypeVar

from msgspec import ValidationError, convert

from muster import child_process, errors
from muster.errors import Broken, Conflict, Malformed, Unreachable
from muster.limits import CALL_BYTES_MAX, REPORT_S_MAX
from muster.verbs.audit import Verified
from muster.verbs.declaration import Daemon, Nothing, Perform, Stream, verb
from muster.verbs.doctor import Checks

T = TypeVar("T")

# What is being made, by the home of its machine: each is a process, and one of a kind is enough.
_UNDER_WAY: Final[set[tuple[str, str]]] = set()


@verb("doctor.report", auth="local", runs="stream", daily=True)
async def doctor(daemon: Daemon, call: Perform, stream: Stream, ask: Nothing) -> Checks:
    """What `muster doctor` finds here."""
    return _read(await _typed(daemon, stream, "doctor"), Checks)


@verb("audit.report", auth="local", runs="stream", daily=True)
async def audit(daemon: Daemon, call: Perform, stream: Stream, ask: Nothing) -> Verified:
    """What `muster audit verify` finds here."""
    return _read(await _typed(daemon, stream, "audit", "verify"), Verified)


def _read(answer: Any, form: type[T]) -> T:
    try:
        return convert(answer, form)
    except ValidationError as error:
        raise Malformed(
            "the command and the daemon of this machine are two versions of Muster: start the "
            "daemon anew, with `muster down` and `muster up --detach`"
        ) from error


async def _typed(daemon: Daemon, stream: Stream, *words: str) -> Any:
    """The answer of our own command with these words. Raises: what it refused with.

    Whoever asked and left ends it (Rule 2 of streams.py).
    """
    home, what = str(daemon.home.path), " ".join(words)
    if (home, what) in _UNDER_WAY:
        raise Conflict(f"`muster {what}` is at work there for somebody else; try again in a moment")
    _UNDER_WAY.add((home, what))
    try:
        return await _answer(home, what, words)
    finally:
        _UNDER_WAY.discard((home, what))


async def _answer(home: str, what: str, words: tuple[str, ...]) -> Any:
    env = {name: text for name, text in os.environ.items() if name != "MUSTER_CAPABILITY"}
    asked = await child_process.start(
        sys.executable, "-m", "muster", "--home", home, *words, "--json",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=env, cwd="/", limit=CALL_BYTES_MAX,
    )  # fmt: skip
    try:
        async with asyncio.timeout(REPORT_S_MAX):
            out, said = await asked.communicate()
    except TimeoutError:
        raise Unreachable(f"`muster {what}` took longer than {REPORT_S_MAX:.0f} s there") from None
    finally:
        await asked.end()
    # It was killed, or printed what is no such JSON: the sentence below says so.
    with contextlib.suppress(ValueError, LookupError, TypeError):
        if asked.returncode in (0, 1):
            return json.loads(out)
        error = json.loads(said.splitlines()[-1])["error"]
        raise errors.of_exit(int(error["exit"]))(str(error["text"]))
    raise Broken(f"`muster {what}` gave no answer there (exit code {asked.returncode})")
