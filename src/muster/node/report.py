"""What an attempt says about itself, as it fits into entries.

Rule 1: an agent's words become an entry or are cut, with a mark; they never raise. Whoever could
make this machine refuse its own entry could end it.
Rule 2: an event names the task and epoch it belongs to; an agent cannot say another.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from muster import limits
from muster.log import canon
from muster.node import event as ev
from muster.task import kinds

_TEXT_CHARS_MAX: Final = 12_000
_ITEMS_MAX: Final = 256
# Of an event's own fields: the frame around them nests, too.
_DEPTH_MAX: Final = limits.JSON_DEPTH_MAX - 4
_VALUE_CHARS_MAX: Final = 16_500
# A path in a repository, or the name of a blob with its hash and size.
_ARTEFACT_CHARS_MAX: Final = 320
_REASON_CHARS_MAX: Final = 2_000


def event_body(event: ev.AttemptEvent) -> bytes:
    """The body of a journal entry, whatever the fields are."""
    fields = plain(event.fields)
    assert isinstance(fields, dict), "the fields of an event are a mapping"
    own = {"epoch": list(event.epoch), "task": event.task}
    raw = canon.encode({**fields, **own})
    if len(raw) > limits.BODY_BYTES_MAX:
        raw = canon.encode({"cut": f"an event of {len(raw)} bytes", **own})
    return raw


def finish_body(event: ev.AttemptEnded) -> kinds.AttemptFinish:
    """How an attempt ended, with everything that others chose cut to bounds."""
    status: Any = event.status
    usage = {_text(n, 64): plain(v) for n, v in list(event.usage.items())[:32] if type(v) is int}
    values, room = {}, limits.BODY_BYTES_MAX // 2
    for name, value in list(event.values.items())[:32]:
        text = _text(value, _VALUE_CHARS_MAX)
        room -= len(text.encode())
        if room > 0:
            values[_text(name, 64)] = text
    return kinds.AttemptFinish(
        event.task,
        event.epoch,
        status,
        summary=_text(event.summary, _REASON_CHARS_MAX),
        reason=_text(event.reason, _REASON_CHARS_MAX),
        commit=_text(event.commit, 64),
        values=values,
        artefacts=_artefacts(event.artefacts),
        usage=usage,
    )


def _artefacts(texts: Iterable[str]) -> list[str]:
    """As many as leave room for the rest of the entry."""
    found, room = [], limits.ARTEFACT_NAMES_BYTES_MAX
    for each in texts:
        text = _text(each, _ARTEFACT_CHARS_MAX)
        room -= len(text.encode())
        if room < 0:
            break
        found.append(text)
    return found[:100]


def plain(value: Any, depth: int = 0) -> Any:
    """The value as canonical JSON can hold it; what it cannot hold becomes text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return max(-limits.INT_ABS_MAX, min(value, limits.INT_ABS_MAX))
    if isinstance(value, float):
        return plain(round(value)) if math.isfinite(value) else 0
    if isinstance(value, str):
        return _text(value, _TEXT_CHARS_MAX)
    if depth >= _DEPTH_MAX:
        return "…[too deep]"
    if isinstance(value, Mapping):
        items = list(value.items())[:_ITEMS_MAX]
        return {_key(name): plain(each, depth + 1) for name, each in items}
    if isinstance(value, list | tuple):
        return [plain(each, depth + 1) for each in value[:_ITEMS_MAX]]
    return f"[{type(value).__name__}]"


def _key(name: Any) -> str:
    return str(name)[:64].encode("ascii", "replace").decode()


def _text(text: Any, chars_max: int) -> str:
    """Text without halves of characters, cut; file names may hold such halves."""
    whole = str(text)
    kept = whole[:chars_max].encode("utf-8", "replace").decode()
    return kept if len(whole) <= chars_max else f"{kept}…[cut]"
