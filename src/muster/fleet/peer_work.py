"""Work that one fleet asks of another: three documents that go between operators, as letters do.

Rule 1: each is signed by the machine that says it, for one fleet and one door of it. Its record,
which travels beside it, says that it is a machine of the fleet that it names.
Rule 2: a task is words of another operator. It is begun by a grant of this fleet and by nothing in
it, and what it may be is looked at as what an agent hands on is (task/delegation.py).
Rule 3: whoever asked alone takes it back; whoever took it alone says what became of it.

    task     `statement` key of who asks:      do this spec, on that machine of yours
    cancel   the same key:                     the task of this id is wanted no more
    report   `statement` key of the door:      the task of this id stands so; the highest number
                                               counts

The receipt for each is that of a letter (letter.py).
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from muster import limits
from muster.errors import Malformed
from muster.fleet.document import Document, Form
from muster.fleet.letter import Said, sender_of
from muster.fleet.name import Hex32, Name
from muster.fleet.record import MachineRecord
from muster.log.keys import Signer

# How a task stands, as its door says it.
State = Literal["open", "done", "failed", "cancelled", "refused", "late"]
OVER: Final = frozenset({"done", "failed", "cancelled", "refused", "late"})

Reason = Annotated[str, Meta(max_length=limits.REASON_CHARS_MAX)]
Place = Annotated[str, Meta(max_length=200)]


class Task(Said, frozen=True, kw_only=True):
    """`to` is the machine that is to do it; `repo` and `base` are names over there."""

    to: Name
    spec: Annotated[str, Meta(min_length=1, max_length=limits.PEER_SPEC_BYTES_MAX)]
    repo: Place = ""
    base: Place = ""
    v: Literal[1] = 1


class Cancel(Said, frozen=True, kw_only=True):
    task: Hex32
    reason: Reason = ""
    v: Literal[1] = 1


class Came(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What came of one task of the run: `said` is the end of what its agent said."""

    phase: Place
    state: Place
    instance: Place = ""
    summary: Reason = ""
    said: Annotated[str, Meta(max_length=limits.PEER_SAID_CHARS_MAX)] = ""


class Report(Said, frozen=True, kw_only=True):
    task: Hex32
    number: Annotated[int, Meta(ge=1, le=limits.PEER_REPORTS_MAX)]
    state: State
    summary: Annotated[str, Meta(max_length=limits.PEER_SAID_CHARS_MAX)] = ""
    came: Annotated[tuple[Came, ...], Meta(max_length=limits.DELEGATED_TASKS_MAX)] = ()
    v: Literal[1] = 1


Work = Task | Cancel | Report

_SIZE: Final = limits.PEER_LETTER_BYTES_MAX
_FORMS: Final[dict[str, Form[Task] | Form[Cancel] | Form[Report]]] = {
    "task": Form("muster/peer-task/v1", Task, "The task", _SIZE),
    "cancel": Form("muster/peer-cancel/v1", Cancel, "The cancelling", _SIZE),
    "report": Form("muster/peer-report/v1", Report, "The report", _SIZE),
}
_KINDS: Final = {form.kind.encode(): name for name, form in _FORMS.items()}
_NAMES: Final = {form.type: name for name, form in _FORMS.items()}


def sign_work(signer: Signer, work: Work) -> bytes:
    """The document, signed. Raises: Malformed for what no reader would take."""
    form = _FORMS[_NAMES[type(work)]]
    raw: bytes = form.write(work, signer)  # type: ignore[arg-type]
    work_of(raw, work.fleet)
    return raw


def sort_of(work: Work) -> str:
    """`task`, `cancel` or `report`."""
    return _NAMES[type(work)]


def work_of(raw: bytes, fleet: str) -> Work:
    """What a document for this fleet says, whoever signed it."""
    return _read(raw, fleet).value


def _read(raw: bytes, fleet: str) -> Document[Task] | Document[Cancel] | Document[Report]:
    name = _KINDS.get(raw[:40].partition(b"\n")[0])
    if name is None:
        raise Malformed("The document is none of a task, a cancelling or a report.")
    if len(raw) > _SIZE or len(msgspec.json.encode(raw.decode("utf-8", "replace"))) > _SIZE:
        # It stands as a text in an entry, with every quote and line end written once more.
        raise Malformed("The document is longer than any that fits into an entry; say less.")
    return _FORMS[name].read(raw, fleet)


def open_work(raw: bytes, record: bytes, fleet: str) -> tuple[Work, MachineRecord]:
    """A document for `fleet` and the machine that signed it. Raises: Forged, Malformed."""
    document = _read(raw, fleet)
    return document.value, sender_of(document, record, fleet)
