"""What an attempt says about itself, as it fits into entries.

Rule 1: an agent's words become an entry or are cut, with a mark; they never raise. Whoever could
make this machine refuse its own entry could end it.
Rule 2: sizes are counted as they stand in the entry: a control character takes six bytes there.
Rule 3: an event names the task and epoch it belongs to; an agent cannot say another.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from muster import limits
from muster.agent.mask import Secrets
from muster.git.cache import Base
from muster.git.collection import Collected
from muster.log import canon
from muster.node import event as ev
from muster.node.host import environment
from muster.task import kinds
from muster.task.duration import Stage
from muster.task.fault import code_of
from muster.task.fold import TaskRow
from muster.task.large_value import told
from muster.task.open_task import Ended
from muster.task.values import WITHHELD

Status = Literal["done", "failed", "killed"]

# Names of changed files in the end of an attempt; its commit has them all.
CHANGED_SHOWN_MAX: Final = 100
# Of one text and of one list; an event that does not fit so is cut more, and at last left out.
_CUTS: Final = ((12_000, 256), (3_000, 128), (1_000, 32), (200, 16))
# Of an event's own fields: the frame around them nests, too.
_DEPTH_MAX: Final = limits.JSON_DEPTH_MAX - 4
# A path in a repository, or the name of a blob with its hash and size.
_ARTEFACT_BYTES_MAX: Final = 640
_REASON_BYTES_MAX: Final = 6_000
# Of the body: the names of fields, the task, the epoch, what an owner's settlement says beside it.
_FRAME_BYTES: Final = 6 * 1024
_NAMES_MAX: Final = 101
_LARGE_MAX: Final = 8
# More names than these nobody reads in one sentence.
_LEFT_OUT_SHOWN_MAX: Final = 8


class AttemptEvent(ev.Event, frozen=True):
    """An attempt of ours did something: for the journal."""

    task: str
    epoch: kinds.Epoch
    kind: str
    fields: Mapping[str, Any]
    actor: str = "muster"


class AttemptStage(ev.Event, frozen=True):
    """What an attempt of ours is at now; its owner hears of it with the next beat."""

    task: str
    epoch: kinds.Epoch
    stage: Stage


class AttemptEnded(ev.Event, frozen=True):
    """An attempt of ours ended: it finished, or failed before its agent began (a refusal)."""

    body: Ended


def event_body(event: AttemptEvent) -> bytes:
    """The body of a journal entry, whatever the fields are."""
    own = {"epoch": list(event.epoch), "task": event.task}
    size = 0
    for text_bytes_max, items_max in _CUTS:
        fields = _Plain(text_bytes_max, items_max).value(event.fields)
        assert isinstance(fields, dict), "the fields of an event are a mapping"
        raw = canon.encode({**fields, **own})
        if len(raw) <= limits.BODY_BYTES_MAX:
            return raw
        size = size or len(raw)
    return canon.encode({"cut": f"an event of {size} bytes", **own})


def finish(  # noqa: PLR0917 - the fields of the entry, in their order
    task: str,
    epoch: kinds.Epoch,
    status: Status,
    summary: str = "",
    reason: str = "",
    commit: str = "",
    values: Mapping[str, str] = {},
    artefacts: Iterable[str] = (),
    usage: Mapping[str, int] = {},
    large: Mapping[str, str] = {},
) -> kinds.AttemptFinish:
    """How an attempt ended, with everything that others chose cut to bounds."""
    counts = {
        name: max(-limits.INT_ABS_MAX, min(count, limits.INT_ABS_MAX))
        for name, count in list(usage.items())[:32]
        if type(count) is int and name.isascii() and name.isidentifier() and len(name) <= 40
    }
    # As many as leave room for the rest of the entry; the last one says how many are missing.
    every = [fit(each, _ARTEFACT_BYTES_MAX) for each in artefacts]
    names, room = list[str](), limits.ARTEFACT_NAMES_BYTES_MAX
    for text in every[:_NAMES_MAX]:
        room -= _size(text)
        if room < 0:
            break
        names.append(text)
    if len(every) > len(names):
        names.append(f"…[{len(every) - len(names)} more]")
    room = limits.BODY_BYTES_MAX - _FRAME_BYTES - 2 * _REASON_BYTES_MAX
    room -= sum(_size(each) for each in names)
    apart = {_key(name): fit(text, 100) for name, text in list(large.items())[:_LARGE_MAX]}
    kept = {}
    # The short ones first: none of them is lost to one that is long.
    for name, value in sorted(list(values.items())[:32], key=lambda item: len(item[1])):
        key = _key(name)
        kept[key] = fit(value, max(0, room - _size(key)))
        room -= _size(key) + _size(kept[key])
    return kinds.AttemptFinish(
        task,
        epoch,
        status,
        summary=fit(summary, _REASON_BYTES_MAX),
        reason=fit(reason, _REASON_BYTES_MAX),
        commit=fit(commit, 64),
        values=kept | told(apart),
        artefacts=names,
        usage=counts,
    )


def refusal(task: str, epoch: kinds.Epoch, part: str, reason: str) -> kinds.AttemptRefuse:
    """That an attempt could not begin: `part` of this machine failed, or the order (fault.py)."""
    return kinds.AttemptRefuse(task, epoch, code_of(part), fit(reason, limits.REASON_CHARS_MAX))


class _Plain(NamedTuple):
    """How long a text and a list may be in a value that becomes canonical JSON."""

    text_bytes_max: int
    items_max: int

    def value(self, value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return max(-limits.INT_ABS_MAX, min(value, limits.INT_ABS_MAX))
        if isinstance(value, float):
            return self.value(round(value)) if math.isfinite(value) else 0
        if isinstance(value, str):
            return fit(value, self.text_bytes_max)
        if depth >= _DEPTH_MAX:
            return "…[too deep]"
        if isinstance(value, Mapping):
            items = list(value.items())[: self.items_max]
            return {_key(name): self.value(each, depth + 1) for name, each in items}
        if isinstance(value, list | tuple):
            found = [self.value(each, depth + 1) for each in value[: self.items_max]]
            left_out = len(value) - len(found)
            return [*found, f"…[{left_out} more]"] if left_out else found
        return f"[{type(value).__name__}]"


def _key(name: Any) -> str:
    return str(name)[:64].encode("ascii", "replace").decode()


def fit(text: Any, bytes_max: int) -> str:
    """Text of at most so many bytes in an entry, without halves of characters; a cut has a mark."""
    # File names may hold such halves. A character takes a byte at least.
    whole = str(text)
    kept = whole[: bytes_max + 1].encode("utf-8", "replace").decode()
    if _size(kept) <= bytes_max:
        return kept
    mark = "…[cut]"
    low, high = 0, len(kept)
    while low < high:
        middle = (low + high + 1) // 2
        if _size(kept[:middle]) + _size(mark) <= bytes_max:
            low = middle
        else:
            high = middle - 1
    return kept[:low] + mark if bytes_max >= _size(mark) else ""


def _size(text: str) -> int:
    """How many bytes the text takes in an entry, without its quotes."""
    return len(canon.encode(text)) - 2


def changed(collected: Collected) -> tuple[str, ...]:
    """What an attempt's commit changed, as far as a person reads it."""
    shown = collected.changed[:CHANGED_SHOWN_MAX]
    left_out = collected.changed_count - len(shown)
    return (*shown, f"…[{left_out} more]") if left_out > 0 else shown


def missing(paths: Iterable[str]) -> str:
    """That deliverables are not there."""
    return "promised and not there: " + ", ".join(paths)


def told_secret(collected: Collected, secrets: Secrets, sure: Collection[str]) -> str:
    """Why a commit cannot go out that says a secret where everybody reads it; "" where it can.

    `sure` are the names of those that are secrets, however they are called and however short.

    A password of a few letters is also a word: a `postgres.conf` tells nobody a database's. And
    what a person keeps to himself, such as a name, an option or an address, is said in commits.
    """
    for what, text in (
        ("a message of the agent's own commits", collected.messages),
        ("the name of a changed file", collected.names),
    ):
        met = secrets.names_in(text).intersection(sure)
        if met or any(environment.is_key(name) for name in secrets.long_in(text)):
            return f"{what} holds a secret of this machine, and whoever fetches reads it"
    return ""


def left_out(collected: Collected) -> str:
    """Lines for the summary: what an attempt made and its commit does not have; "" for nothing."""
    nested, beside = _listed(collected.left_out), _listed(collected.beside)
    lines = [f"\nleft out, as git repositories of their own: {nested}"] if nested else []
    lines += [f"\nnot in the result: {beside}"] if beside else []
    return "".join(lines)


def _listed(names: Sequence[str]) -> str:
    hidden = len(names) - _LEFT_OUT_SHOWN_MAX
    more = f" and {hidden} more" if hidden > 0 else ""
    return ", ".join(names[:_LEFT_OUT_SHOWN_MAX]) + more


def handed_on(values: Mapping[str, str], summary: str, masked: Iterable[str]) -> dict[str, str]:
    """The values of an attempt that is done, and which texts are withheld from later phases.

    A text with the name of a secret in its place is not what was said: nobody gets it.
    """
    told, marks = {"output": values["output"], "summary": summary}, [f"[{each}]" for each in masked]
    withheld = [name for name, text in told.items() if any(mark in text for mark in marks)]
    return {**values, **({WITHHELD: " ".join(withheld)} if withheld else {})}


def bases(commits: str, settled: Iterable[TaskRow]) -> list[Base]:
    """The commits that an attempt starts from, each under the name of what it came from: the phase,
    and of several tasks which; `settled` are the tasks of its run.
    """
    labels = dict[str, str]()
    for row in settled:
        of = f"[{row.instance}]" if row.instance else ""
        labels.setdefault(row.commit_id, row.phase + of)
    return [Base(labels.get(each, each[:12]), each) for each in commits.split()]
