"""What still counts of a revoked operator's key: the authority's last word about it.

Rule 1: what an operator took back, and which incident it acknowledged, stays so when the operator
is revoked. A key that was shut out may sign more of it, under any date, and no stamp tells the two
apart. So whoever shuts the key out says, in the authority's name, what of it was known then.
Rule 2: what the end of a key does not name counts for nothing, whoever passes it on, and wherever
it stands. Of several ends of one key all that any of them names counts.
Rule 3: a key that was revoked without an end (by an older version) keeps what it signed, until the
authority's machine writes the end. Older machines read over an end: there all of it counts.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from muster import limits
from muster.fleet.document import Contents, Form
from muster.fleet.machine import Authority
from muster.fleet.name import Hex32, Milliseconds
from muster.log.stream import FleetId

_OPENED_MAX: Final = 256

Named = Annotated[tuple[Hex32, ...], Meta(max_length=limits.OPERATOR_END_NAMES_MAX)]


class End(Contents, frozen=True):
    """The last word: the grants and terms that the key took, the incidents that it acknowledged.

    Those were forks only when the field got its name.
    """

    forks: Named
    issued_ms: Milliseconds
    operator: Hex32
    taken: Named


_END: Final = Form(
    "muster/operator-end/v1", End, "The end of an operator's key", limits.OPERATOR_END_BYTES_MAX
)


class Ended(NamedTuple):
    """All that counts of one key, from every end of it."""

    taken: frozenset[str]
    forks: frozenset[str]


def sign_end(
    authority: Authority,
    *,
    operator: str,
    taken: Iterable[str],
    forks: Iterable[str],
    issued_ms: int,
) -> bytes:
    """The document that ends a key; of each sort as many names as it has room for, the first."""
    end = End(
        fleet=authority.fleet,
        forks=tuple(forks)[: limits.OPERATOR_END_NAMES_MAX],
        issued_ms=issued_ms,
        operator=operator,
        taken=tuple(taken)[: limits.OPERATOR_END_NAMES_MAX],
    )
    raw = _END.write(end, authority.record)
    open_end(raw, authority.fleet)
    return raw


@lru_cache(maxsize=_OPENED_MAX)
def open_end(raw: bytes, fleet: FleetId) -> End:
    """The end in `raw`, when the authority signed it."""
    return _END.read(raw, fleet).check(fleet)


def ended(documents: Iterable[bytes], fleet: FleetId, revoked: Iterable[str]) -> dict[str, Ended]:
    """Per revoked key what counts of it; a key that was not revoked has no end."""
    shut, found = frozenset(revoked), dict[str, Ended]()
    for raw in set(documents):
        end = open_end(raw, fleet)
        if end.operator in shut:
            before = found.get(end.operator, Ended(frozenset(), frozenset()))
            taken, forks = before.taken | set(end.taken), before.forks | set(end.forks)
            found[end.operator] = Ended(taken, forks)
    return found


def took(ends: Mapping[str, Ended], key: str, id: str) -> bool:
    """Whether the end of a key, where it has one, names this taking."""
    return key not in ends or id in ends[key].taken


def acknowledged(ends: Mapping[str, Ended], key: str, incident: str) -> bool:
    """Whether the end of a key, where it has one, names this incident."""
    return key not in ends or incident in ends[key].forks
