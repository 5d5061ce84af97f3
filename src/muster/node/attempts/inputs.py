"""Values of an attempt, whole: those it is given, and those that it hands on.

Rule 1: what does not fit into an entry is a blob, kept before the entry that names it is written,
and fetched under that entry before the attempt begins.
Rule 2: files with values lie beside the attempt's folder, not in it: they are not delivered.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from muster.errors import Malformed, Unreachable
from muster.limits import VALUE_BYTES_MAX, VALUE_INLINE_BYTES_MAX
from muster.node.attempts import blob_transfer as holder
from muster.node.counter import DECLARED
from muster.node.runtime import Runtime
from muster.node.tasks import results as yields
from muster.task import large_value, values
from muster.task.artefact import Artefact
from muster.task.instruction import StartAttempt
from muster.task.kinds import Epoch, epoch_text
from muster.task.template import text_size
from muster.task.values import Uses, Values

DECLARED[__name__] = {
    "values-left": "Files with the values of an attempt could not be removed when it ended.",
}

# Runs a piece of work again while what it needs is out of reach.
Patiently = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]

_PRIVATE: Final = 0o700
_PRIVATE_FILE: Final = 0o600


async def taken(daemon: Runtime, start: StartAttempt, patiently: Patiently) -> StartAttempt:
    """The start of an attempt with what it is given, whole, and in files where a text asks for one.

    Raises: Unreachable while the results before it, or a machine that has one, are out of reach;
    Refused where one cannot be handed on.
    """
    given = await _whole(daemon, start, patiently)
    return replace(start, values=_in_files(folder_of(daemon, start), start, given))


async def _whole(daemon: Runtime, start: StartAttempt, patiently: Patiently) -> Values:
    """The values, fetched where they are not in the opening of the task."""
    opened = start.open
    results = yields.results_of(opened)
    if not results:
        return opened.values
    found: dict[str, dict[str, str]] = {name: dict(known) for name, known in opened.values.items()}
    used = values.uses_of(opened.template)
    store, phases = daemon.core.store, yields.phases_of(opened)
    given: yields.Pieces = {}

    async def read() -> None:
        settled = yields.gathered(store, start.owner, opened.run, phases)
        if yields.digest(settled) != results:
            raise Unreachable("the results of the phases before this one are not all here yet")
        given.update(yields.used(yields.pieces(store, settled), used))

    await patiently(read)
    for phase, known in given.items():
        for value, several in known.items():
            texts = [
                await _text(daemon, f"{value} of {phase}", each, patiently) for each in several
            ]
            found.setdefault(phase, {})[value] = "\n".join(texts)
    return found


async def _text(daemon: Runtime, what: str, piece: yields.Piece, patiently: Patiently) -> str:
    if piece.large is None:
        return piece.text
    artefact = Artefact(what, piece.large.sha256, piece.large.size)
    source = holder.Source(artefact, piece.entry, piece.machine)
    await patiently(lambda: holder.bring(daemon, source))
    raw = await asyncio.to_thread(daemon.machine.blobs.get, artefact.sha256)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{what} is no text, though it was handed on as one") from error


def _in_files(folder: Path, start: StartAttempt, given: Values) -> Values:
    """The values, and a file for each that a text asks for as one."""
    used: Uses = values.uses_of(start.open.template)
    found = dict(given)
    for phase, known in given.items():
        for value, text in known.items():
            if phase in values.RESERVED or not used.as_file(phase, value):
                continue
            values.check_not_withheld(known, values.Reference(phase, value))
            name = values.variable(phase, value)
            path = put(folder, name, values.bounded(phase, value, text))
            found[phase] = {**found[phase], value + values.FILE_VALUE: path}
    return found


def put(folder: Path, name: str, text: str) -> str:
    """A file beside an attempt's folder with a text that it is given; its path."""
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    path = folder / name
    path.touch(mode=_PRIVATE_FILE)
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


async def kept(
    daemon: Runtime, task: str, epoch: Epoch, said: Mapping[str, str], said_bytes: int
) -> tuple[dict[str, str], dict[str, str]]:
    """What an attempt hands on, as its end says it: the values, and which of them are large.

    `said_bytes` is how long its output was, of which `said` may have the end only.
    Raises: Broken where the disk refuses.
    """
    found, larger = dict(said), dict[str, str]()
    output = values.clean(said.get("output", ""))
    raw = output.encode("utf-8", "replace")
    size = max(said_bytes, len(raw))
    if max(size, len(raw)) > VALUE_BYTES_MAX:
        larger["output"] = str(large_value.Large(size))
        output = large_value.shown(output, size)
    elif text_size(output) > VALUE_INLINE_BYTES_MAX:
        if "output" not in values.withheld(said):
            blobs = daemon.machine.blobs
            sha256 = await asyncio.to_thread(blobs.put, raw)
            blobs.claim(sha256, holder.attempt_claim(task, epoch))
            larger["output"] = str(large_value.Large(len(raw), sha256))
        output = large_value.shown(output, len(raw))
    found["output"] = output
    return found, larger


def folder_of(daemon: Runtime, start: StartAttempt) -> Path:
    """Where the files lie that an attempt is given."""
    return Path(daemon.home.work) / f"{start.assign.task}-{epoch_text(start.assign.epoch)}.values"


def discard(daemon: Runtime, start: StartAttempt) -> None:
    """Remove the files with values; harmless when there are none."""
    folder = folder_of(daemon, start)
    try:
        for path in folder.iterdir():
            path.unlink()
        os.rmdir(folder)
    except FileNotFoundError:
        # It was given none in files.
        return
    except OSError:
        daemon.core.counters["values-left"] += 1
