"""How an attempt is enclosed on this machine: what its order asks, held against what is allowed.

Rule 1: the narrowest wins. The order asks, the agent's entry says what its program needs, the
        owner of the machine says how much of that there is here; nobody widens another's word.
Rule 2: what is asked and not allowed is a refusal, never less than was asked; and what must be
        enclosed and cannot be is never run without.
Rule 3: another fleet's work is enclosed whatever anybody says, and opens nothing but what its agent
        needs itself.
Rule 4: nothing here looks at a disk or a name; `real` tells where a path leads, where that counts.

    decision = decide(order, agent, terms, place)     # raises nothing
    decision.refusal          why it does not run here; "" where it does
    decision.enclosed         False: it runs as the daemon does
    decision.profile_hash()   what was decided, for the journal and for whoever approves something
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from muster.errors import Malformed
from muster.log import canon
from muster.task.host_path import lies_in
from muster.task.host_rule import HostRule, covers, uncovered
from muster.task.openings import OFF, ON, Openings, openings_of
from muster.task.template import SHELL

ALLOW: Final = "allow"
_DOMAIN: Final = b"muster/sandbox-profile/v1\n"
# What is said of a decision, in its words: why it is enclosed, or is not.
BY_FLEET: Final = "another fleet asked for it"
BY_SPEC: Final = "the spec says so"
BY_DEFAULT: Final = "the spec says nothing of it, and this machine encloses"
BY_OWNER: Final = "the spec says nothing of it, and this machine's owner has such work run without"


class Terms(NamedTuple):
    """What the owner of a machine says of sandboxes (`[sandbox]` of its config.toml).

    `network` is the most that is reached from any, None where nothing is said; `local` of that may
    lead into the machine's own networks. `read` and `write` are the paths that may be shown.
    """

    default: str = ON
    off: str = ALLOW
    network: tuple[HostRule, ...] | None = None
    local: tuple[HostRule, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    memory_bytes: int = 0
    processes: int = 0


class Doer(NamedTuple):
    """The agent that is to do it, the hosts that its entry says it needs, and for whom it works."""

    agent: str
    hosts: tuple[HostRule, ...] = ()
    foreign: bool = False


def _itself(path: str) -> str:
    return path


class Here(NamedTuple):
    """What is so on this machine. `cannot` is why it cannot enclose, "" where it can.

    `home` is what `~` means, `never` what is shown to nobody (the homes of daemons, their keys),
    `protected` the paths of a work folder that are not written, `real` where a path leads.
    """

    cannot: str = ""
    home: str = ""
    never: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    real: Callable[[str], str] = _itself


class Decision(NamedTuple):
    """How the attempt runs here, or with a `refusal` that it does not; `why` says who decided.

    `network` are all hosts that it reaches, `local` those of them that may lead into the machine's
    own networks; `read` and `write` whole paths of the machine, shown where they are; `free`
    protected paths of the work folder that may be written.
    """

    enclosed: bool = True
    why: str = ""
    network: tuple[HostRule, ...] = ()
    local: tuple[HostRule, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    memory_bytes: int = 0
    processes: int = 0
    refusal: str = ""

    def profile(self) -> dict[str, Any]:
        """What it comes to, in one form for equal decisions: who decided is no part of it."""
        if not self.enclosed:
            return {"enclosed": False, "v": 1}
        return {
            "enclosed": True,
            "free": sorted(set(self.free)),
            "local": sorted({str(rule) for rule in self.local}),
            "memory_bytes": self.memory_bytes,
            "network": sorted({str(rule) for rule in self.network}),
            "processes": self.processes,
            "read": sorted(set(self.read)),
            "v": 1,
            "write": sorted(set(self.write)),
        }

    def profile_hash(self) -> str:
        """SHA-256, in hex, of the canonical form of its profile."""
        return hashlib.sha256(_DOMAIN + canon.encode(self.profile())).hexdigest()


def decide(order: Mapping[str, Any], doer: Doer, terms: Terms, here: Here) -> Decision:
    """How the task of this order runs here, done by this agent."""
    try:
        asked = openings_of(order)
    except Malformed as error:
        return Decision(refusal=str(error))
    if why := _unenclosed_refusal(asked, doer, terms):
        return Decision(refusal=why)
    if asked.is_off:
        return Decision(enclosed=False, why=BY_SPEC)
    said = asked != Openings()
    if not said and not doer.foreign and terms.default == OFF:
        return Decision(enclosed=False, why=BY_OWNER)
    by = BY_FLEET if doer.foreign else BY_SPEC if said else BY_DEFAULT
    found = _enclosed(asked, doer, terms, here)
    return found if found.refusal else found._replace(why=by)


def _unenclosed_refusal(asked: Openings, doer: Doer, terms: Terms) -> str:
    if doer.foreign:
        widened = asked.network or asked.read or asked.write or asked.free
        if asked.is_off or widened:
            return "another fleet's work is enclosed, and opens nothing but what its agent needs"
        return ""
    if not asked.is_off:
        return ""
    if doer.agent != SHELL:
        return f"only a shell is run without a sandbox, and this is {doer.agent}'s work"
    if asked != Openings(OFF):
        return "it is to run without a sandbox, and says what a sandbox is to let through"
    if terms.off != ALLOW:
        return (
            'the owner of this machine has nothing run without a sandbox (`off = "refuse"` under '
            "[sandbox])"
        )
    return ""


def _enclosed(asked: Openings, doer: Doer, terms: Terms, here: Here) -> Decision:
    if here.cannot:
        return Decision(refusal=f"this machine cannot enclose it: {here.cannot}")
    network = () if asked.cut else tuple(dict.fromkeys((*doer.hosts, *asked.network)))
    if terms.network is not None and (others := uncovered((*terms.network, *terms.local), network)):
        whose = "its agent needs" if others[0] in doer.hosts else "it is to reach"
        return Decision(
            refusal=f"{whose} {others[0]}, and the owner of this machine lets no sandbox reach "
            "that (`network` under [sandbox])"
        )
    whole = _Paths(terms, here)
    read, write = whole.absolute(asked.read), whole.absolute(asked.write)
    if refusal := next(whole.refusals(read, write), ""):
        return Decision(refusal=refusal)
    return Decision(
        network=network,
        local=tuple(rule for rule in network if any(covers(each, rule) for each in terms.local)),
        read=tuple(path for path in read if path not in write),
        write=write,
        free=tuple(path for path in here.protected if lies_in(path, asked.free)),
        memory_bytes=terms.memory_bytes,
        processes=terms.processes,
    )


class _Paths:
    """The paths of one decision, held against the owner's lists."""

    def __init__(self, terms: Terms, here: Here) -> None:
        self.here = here
        self.read, self.write = self.absolute(terms.read), self.absolute(terms.write)

    def absolute(self, paths: Iterable[str]) -> tuple[str, ...]:
        home = self.here.home.rstrip("/")
        whole = (f"{home}{path[1:]}" if path.startswith("~/") else path for path in paths)
        return tuple(dict.fromkeys(path.rstrip("/") for path in whole))

    def refusals(self, read: Collection[str], write: Collection[str]) -> Iterator[str]:
        for path in read:
            if not self._lies_in(path, (*self.read, *self.write)):
                yield (
                    f"it is to be shown {path}, and the owner of this machine shows that to no "
                    "work (`paths` under [sandbox])"
                )
        for path in write:
            if not self._lies_in(path, self.write):
                yield (
                    f"it is to write to {path}, and the owner of this machine lets no work do that "
                    "(`writable` under [sandbox])"
                )
        for path in (*read, *write):
            if self._is_secret(path):
                yield f"{path} holds what belongs to Muster itself, and is shown to no work"

    def _lies_in(self, path: str, tops: Collection[str]) -> bool:
        # Where a link leads counts as well: an attempt that may write could have made it.
        real = self.here.real
        return lies_in(path, tops) and lies_in(real(path), map(real, tops))

    def _is_secret(self, path: str) -> bool:
        real = self.here.real
        never = {each for own in self.here.never for each in (own, real(own))}
        return any(
            lies_in(each, never) or any(lies_in(own, [each]) for own in never)
            for each in (path, real(path))
        )
