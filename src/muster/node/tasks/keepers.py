"""Who keeps a repository: by the roster, or by who goes on with the work of a machine that is gone.

Rule 1: by the roster it is a hub that has it, or whom an operator granted it. In place of such a
machine another one keeps it that goes on with its work by an operator's order, and says so
(`repo.adopt`): of several the one with the highest generation, which is one more than that of
every word that its writer knew.
Rule 2: it can do that where it has a mirror: a machine that stands in for another one pulls what
that keeps, on each new link and whenever it is told that something moved.
Rule 3: who kept it before follows: it serves no push of it, uses it where it is kept now, and makes
its own folder like that. So it could keep it again, by another order.
Rule 4: when a mirror is pulled is said in pulls.py, and how old one is in behind.py.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from muster.fleet.kinds import OrderTake
from muster.fleet.record import MachineRecord
from muster.limits import CLOCK_AHEAD_MS_MAX
from muster.log.entry import EntryId
from muster.log.fold import body_or_none
from muster.log.stream import FleetId, MachineId
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.incarnations.own_incarnation import OwnIncarnation
from muster.node.part import Part
from muster.node.tasks.asking import Asking
from muster.node.tasks.behind import Behind
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.pulls import Mirror, Pulls
from muster.node.tasks.standins import standins, still_counts
from muster.task.adoption import check_ground
from muster.task.causes import Unproven
from muster.task.fold import ADOPTION, RUN, TASK, AdoptionRow, RunRow, TaskRow
from muster.task.keeping import KEEPING, KeepingFold, RepoAdopt
from muster.task.kinds import TaskAdopt, TaskOpen
from muster.task.standin import FleetStandin

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "repository-adopted": "A repository of a machine that is gone is kept here.",
    "mirror-pulled": "A repository that another machine keeps was copied as it is there.",
    "mirror-not-pulled": "A repository that another machine keeps could not be copied.",
}

_PROVEN_MAX: Final = 1_000
# So many of a machine's newest adoptions of a hub's work are looked at: does it go on with it?
_ADOPTIONS_MAX: Final = 16


class PullMirror(ev.Effect, frozen=True):
    """Copy a repository as it is at the machine that keeps it. Answer with `Pulled`."""

    machine: str
    repo: str


class Pulled(ev.Event, frozen=True):
    """A mirror is as it was, or why not; `aside` its keeper had not, and `whole` it has all."""

    machine: str
    repo: str
    reason: str = ""
    aside: tuple[str, ...] = ()
    whole: bool = False


class KeepMirror(ev.Effect, frozen=True):
    """Make a mirror a repository of this machine. Answer with `Kept`."""

    machine: str
    repo: str


class Kept(ev.Event, frozen=True):
    """What was a mirror is a repository here, or why not; `missing` is what was pushed before."""

    machine: str
    repo: str
    reason: str = ""
    missing: tuple[str, ...] = ()


class RepositoryMoved(ev.Event, frozen=True):
    """A machine says that something moved in a repository that it keeps."""

    machine: str
    repo: str


class MirrorsHere(ev.Event, frozen=True):
    """What this machine had mirrored before it started: machines and repositories, and when."""

    mirrors: tuple[tuple[str, str], ...]
    made_ms: tuple[int, ...] = ()


class Keepers(Part):
    name = "keepers"
    effects = (PullMirror, KeepMirror)

    def __init__(self, core: "Core") -> None:
        self.core = core
        # Words that were found to be backed by an order, and whose work that is about.
        self._proven: dict[bytes, str] = {}
        # What is mirrored here, and what of it is being made a repository, by which order.
        self._here: set[Mirror] = set()
        self._taking: dict[Mirror, EntryId] = {}
        self.behind = Behind(core)
        self._pulls = Pulls(core, self.behind)
        self._look = True
        core.leads = self.leads
        for kind in ("fleet.standin", "repo.adopt"):
            core.on(kind, lambda _stream, _entry: self._anew())
        core.on(ev.RosterChanged, lambda _event: self._anew())
        core.on(ev.MachineHere, lambda event: self._pulls.came(event.machine))
        core.on(RepositoryMoved, lambda event: self._pulls.moved(Mirror(event.machine, event.repo)))
        core.on(MirrorsHere, self._on_here)
        core.on(Pulled, self._on_pulled)
        core.on(Kept, self._on_kept)

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (KeepingFold(),)

    # --- who leads -------------------------------------------------------------------------

    def leads(self) -> list[MachineId]:
        """Whom this machine asks first: the hubs that are here; where none is, whoever goes on with
        the work of one.
        """
        hubs = [hub.machine for hub in self.core.roster.hubs()]
        return [m for m in hubs if self._is_here(m)] or self._successors()

    def _is_here(self, machine: MachineId) -> bool:
        return machine == self.core.machine or self.core.link_to(machine) is not None

    def _successors(self) -> list[MachineId]:
        core, facts = self.core, self.core.roster.facts
        here = [m for m in core.roster.machines if self._is_here(m)]
        # Of what else somebody says that it keeps it, nobody could have anything.
        repos = sorted({repo for m in here if m in facts for repo in facts[m].repositories})
        holders = [each for each in map(self._holders, repos) if len(each) > 1]
        found = dict[MachineId, None]()
        for hub in filter(self.is_hub, core.roster.known):
            newest = [
                (row.generation, self._tie(row.entry), m)
                for m in here
                if (row := self._newest_of(m, hub)) is not None
            ]
            found |= dict.fromkeys(m for *_, m in sorted(newest, reverse=True))
            found |= dict.fromkeys(each[-1] for each in holders if hub in each[:-1])
        return [m for m in found if m in here]

    def _newest_of(self, machine: MachineId, hub: MachineId) -> AdoptionRow | None:
        """The newest by which a machine goes on with work of a hub: a member's own word is none.

        Each one's are looked into by themselves: whoever writes much crowds out nobody.
        """
        owned = self.core.part(Ownership)
        rows = self.core.tables.rows(
            ADOPTION, writer=machine, owner=hub, order=("-at_ms",), limit=_ADOPTIONS_MAX
        )
        for row in rows:
            owner = owned.owner(RUN, row.what) or owned.owner(TASK, row.what)
            if owner == machine and self._is_ordered(row.entry):
                return row
        return None

    # --- who keeps it ----------------------------------------------------------------------

    def keeper(self, repo: str) -> MachineRecord | None:
        """The machine that a repository is fetched from and pushed to; None where nobody has it."""
        by_roster = self.core.roster.keeper(repo, self.core.now.wall_ms)
        return self.successor(repo) or by_roster

    def successor(self, repo: str) -> MachineRecord | None:
        """Who keeps it in place of a machine that had it; None where the roster says it."""
        holders = self._holders(repo)
        return self.core.roster.machines[holders[-1]] if len(holders) > 1 else None

    def is_kept_here(self, repo: str, *, mirrored: bool) -> bool:
        """Whether this machine decides about a repository in its folder, which was `mirrored` of
        another one's or was not.
        """
        keeper = self.keeper(repo) if mirrored else self.successor(repo)
        return keeper.machine == self.core.machine if keeper is not None else not mirrored

    def followers(self, repo: str) -> set[str]:
        """Who is to hear of what moves in a repository that is kept here."""
        me = self.core.machine
        before = {str(holder) for holder in self._holders(repo)[:-1]}
        rows = [row for m, row in standins(self.core).items() if m in {me, *before}]
        return before.union(*(row.named for row in rows)) - {"", me}

    def kept_before(self, repo: str) -> bool:
        """Whether this machine kept it, and another one does now."""
        *before, last = self._holders(repo)
        return self.core.machine in before and last != self.core.machine

    def _holders(self, repo: str) -> list[MachineId]:
        """Who keeps it by the roster ("" for nobody), and who in place of that, one by one."""
        roster = self.core.roster
        first = roster.keeper(repo, self.core.now.wall_ms)
        holders = [first.machine if first is not None else MachineId("")]
        rows = self.core.tables.rows(KEEPING, repo=repo)
        rows.sort(key=lambda row: (row.generation, self._tie(row.entry)))
        for row in rows:
            machine, of = MachineId(row.stream.machine), MachineId(row.of)
            if machine not in roster.machines or not self._has(machine, repo):
                continue
            # By the roster it would be another one now: who had it was shut out, or the successor
            # is a hub as well. Where it is nobody's, what a hub tells now that had it decides
            # nothing: it may be back without its disk.
            had = self.is_hub(of) and (first is None or self._has(of, repo))
            had = had and (first is None or of not in roster.machines or holders == [machine])
            if (of in holders or had) and self._is_ordered(row.entry):
                kept = holders if of in holders else [of, *holders]
                # By an order about another one's work nothing else of this one's is kept.
                if self._proven[row.entry] in kept:
                    holders = [*kept, machine]
        return holders

    def _tie(self, word: EntryId) -> bytes:
        """Which of two of one generation counts: by the orders that they were taken by.

        Operators sign those; no machine chooses what it is.
        """
        entry = self.core.log.entry(word)
        cited = [self.core.log.entry(cause) for cause in entry.causes] if entry is not None else []
        orders = [
            body.statement
            for each in cited
            if (body := body_or_none(each, OrderTake) or body_or_none(each, FleetStandin))
        ]
        return sha256("".join(orders).encode()).digest()

    def is_hub(self, machine: MachineId) -> bool:
        record = self.core.roster.known.get(machine)
        return record is not None and "hub" in record.roles

    def _has(self, machine: MachineId, repo: str) -> bool:
        facts = self.core.roster.facts.get(machine)
        return facts is not None and repo in facts.repositories

    def _is_ordered(self, word: EntryId) -> bool:
        """Whether an operator ordered that this one goes on with a repository, or with work."""
        if word in self._proven:
            return True
        core, entry = self.core, self.core.log.entry(word)
        body = body_or_none(entry, RepoAdopt) or body_or_none(entry, TaskAdopt)
        if entry is None or body is None:
            return False
        leads = Asking(core, ever=True).leads
        fleet, lookup = core.membership.fleet, core.log.entry
        try:
            about = check_ground(entry, body.of, body.generation, 0, lookup, fleet, leads)
        except Unproven:
            return False
        if len(self._proven) >= _PROVEN_MAX:
            self._proven.clear()
        self._proven[word] = about
        return True

    # --- going on --------------------------------------------------------------------------

    def has_mirror(self, machine: str, repo: str) -> bool:
        """Whether this machine could keep a repository that is another one's."""
        return Mirror(machine, repo) in self._here and self._is_its(machine, repo)

    def take(self, machine: str, order: EntryId) -> None:
        """Keep what is mirrored here of a machine's repositories, by an operator's order."""
        if not still_counts(self.core, order):
            return
        named = body_or_none(self.core.log.entry(order), FleetStandin)
        about = machine if named is None else named.machine
        for each in sorted(self._here - self._taking.keys()):
            if each.machine != machine or about not in (machine, *self._holders(each.repo)):
                continue
            if self._is_its(*each):
                self._taking[each] = order
                self.core.do(KeepMirror(*each))

    def time_ms(self, machine: str, repo: str) -> int:
        """How long a pull of a repository may take."""
        return self._pulls.time_ms(Mirror(machine, repo))

    def wants(self, machine: str, repo: str) -> bool:
        """Whether a repository of that machine is to be here as well, as grants stand now."""
        return Mirror(machine, repo) in self._wants()

    def _is_its(self, machine: str, repo: str) -> bool:
        """Whether a machine keeps a repository as grants stand now; a hub that lost it still does.

        Whose grant has ended keeps it no more, and hands it on to nobody.
        """
        keeper = self.keeper(repo)
        return self.is_hub(MachineId(machine)) if keeper is None else keeper.machine == machine

    def is_of(self, machine: str, repo: str) -> bool:
        """Whether a repository is out of reach without that machine."""
        keeper = self.keeper(repo)
        return keeper is None or keeper.machine == machine

    def _on_kept(self, event: Kept) -> None:
        each = Mirror(event.machine, event.repo)
        order = self._taking.pop(each, None)
        self._here.discard(each)
        if event.reason:
            name = self.core.membership.name_of(MachineId(each.machine))
            self.core.note(f"repository {each.repo} of {name} is not kept here: {event.reason}")
        elif order is not None and self._is_its(*each) and still_counts(self.core, order):
            self.core.part(OwnIncarnation).keeps(each.repo)
            # What it was given after says its place, and no clock.
            generation = self._highest(each.repo) + 1
            body = RepoAdopt(each.repo, each.machine, generation)
            self.core.append_body(body, cause=(order,))
            self.behind.kept(*each, event.missing)
            self.core.counters["repository-adopted"] += 1

    def _highest(self, repo: str) -> int:
        """The highest generation of whoever keeps it, or of a word of ours that counts no more.

        What else others write is no measure: under a place above any nobody would believe us.
        """
        me, highest_ms = self.core.machine, self.core.now.wall_ms + CLOCK_AHEAD_MS_MAX
        return max(
            (
                row.generation
                for row in self.core.tables.rows(KEEPING, repo=repo)
                if (row.stream.machine == me and row.generation <= highest_ms)
                or self._is_ordered(row.entry)
            ),
            default=0,
        )

    # --- mirrors ---------------------------------------------------------------------------

    def _anew(self) -> None:
        """Who stands in for whom, or keeps what, was said anew."""
        self._proven.clear()
        self._look = True

    def _wants(self) -> set[Mirror]:
        """What of others is to be here as well."""
        core, found = self.core, set[Mirror]()
        me, facts = core.machine, core.roster.facts
        for machine, row in standins(core).items():
            if me in row.named and machine in core.roster.machines and machine in facts:
                for repo in facts[MachineId(machine)].repositories:
                    keeper = self.keeper(repo)
                    if keeper is not None and keeper.machine in {machine, *row.named} - {me}:
                        found.add(Mirror(keeper.machine, repo))
        for repo in facts[me].repositories if me in facts else ():
            keeper = self.successor(repo) if self.kept_before(repo) else None
            if keeper is not None and keeper.machine != me:
                found.add(Mirror(keeper.machine, repo))
        return found

    def _on_here(self, event: MirrorsHere) -> None:
        self._here |= {Mirror(*each) for each in event.mirrors}
        for each, made_ms in zip(event.mirrors, event.made_ms, strict=False):
            self.behind.made(each, made_ms)

    @property
    def needs_tick(self) -> bool:
        return self._look or self._pulls.needs_tick

    def tick(self) -> None:
        """Pull what is due."""
        # A grant ends when its time is over, and nobody tells.
        if self._look or self._pulls.is_due:
            self._look = False
            self._pulls.want(self._wants())
        for each in self._pulls.begin():
            self.core.do(PullMirror(*each))

    def _on_pulled(self, event: Pulled) -> None:
        each = Mirror(event.machine, event.repo)
        self._pulls.ended(each, whole=not event.reason)
        if event.reason:
            self.core.counters["mirror-not-pulled"] += 1
            return
        self.core.counters["mirror-pulled"] += 1
        self._here.add(each)
        self.behind.aside(*each, event.aside, whole=event.whole)
        if self.kept_before(each.repo):
            self.behind.followed(*each)


def repository_of(core: "Core", row: RunRow | TaskRow) -> str:
    """The repository in which is worked, "" for none."""
    if isinstance(row, RunRow):
        return row.repo
    opened = body_or_none(core.log.entry(row.opened), TaskOpen)
    return "" if opened is None else opened.repo
