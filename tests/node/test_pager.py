"""Who tells people what happens, over real cores in virtual time; the services are the test's."""

import re
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.promise import proves

from muster.fleet import kinds
from muster.fleet.escalation import Hours, Service
from muster.fleet.folds import INCIDENT
from muster.fleet.grant import Grant, sign_give
from muster.fleet.machine import Operator
from muster.fleet.silence_fold import NOTIFY
from muster.log import canon
from muster.node import event as ev
from muster.node import incidents
from muster.node.services import pager
from muster.node.services.pager import BROKEN, Page, Paged, Paging
from muster.task.kinds import RunOpen, RunSettle
from muster.verbs.table import VERBS

SERVICES = (Service("team", "chat"), Service("phone", "push"), Service("mail", "mail"))
MIN = 60_000


class Fleet:
    """A fleet of cores; what they tell people is in `said`, as (machine, services, message)."""

    def __init__(self, *names: str) -> None:
        self.world = Cores(*names)
        for name in names[1:]:
            self.world.link(names[0], name)
        self.world.pass_ms(4_000)
        self.fails: dict[str, str] = {}
        self.dead: set[str] = set()
        self.said: list[tuple[str, tuple[str, ...], Page]] = []
        self.answered: dict[str, int] = {}

    def __getitem__(self, name: str) -> One:
        return self.world[name]

    def pages(self, *names: str, services: Any = SERVICES, **more: Any) -> None:
        for name in names:
            self[name].step(Paging(services, names, **more))
        self.world.drain()

    def pass_s(self, seconds: int, step_s: int = 1) -> None:
        """So much time; the services answer meanwhile, of machines that live."""
        for _ in range(seconds // step_s):
            self.world.ms += step_s * 1_000
            for name, machine in self.world.machines.items():
                if name in self.dead:
                    continue
                machine.step(ev.Tick())
                self.world.drain()
                for page in self._new(machine):
                    self.said.append((name, page.services, page))
                    reasons = tuple((s, self.fails.get(s, "")) for s in page.services)
                    machine.step(Paged(page.number, reasons))
                    self.world.drain()

    def _new(self, machine: One) -> list[Page]:
        every = [e for e in machine.effects if isinstance(e, Page)]
        new = every[self.answered.get(machine.name, 0) :]
        self.answered[machine.name] = len(every)
        return new

    def do(self, name: str, work: Any) -> None:
        """Something that a machine does by itself, and the others hear of."""
        core = self[name].core
        with core.store.transaction():
            core.now = self.world.now()
            work(core)
            core.store.seal_dirty(core.membership.signer("seal"))
        core.sync.after_commit(core.now.boot_ms)
        self[name].step(ev.Tick())
        self.world.drain()

    def opens(self, name: str, key: str, severity: str = "critical", title: str = "") -> None:
        self.do(name, lambda core: core.incidents.open(key, severity, title or f"{key} is bad"))

    def closes(self, name: str, key: str) -> None:
        self.do(name, lambda core: core.incidents.close(key, "it is gone"))

    def told(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(name, services) for name, services, _ in self.said]

    def incident(self, name: str, key: str) -> dict[str, Any]:
        found = self[name].call("incidents", {})["value"]
        (one,) = [each for each in found if each["key"] == key and each["open"]]
        return dict(one)


@pytest.fixture
def fleet() -> Fleet:
    made = Fleet("hub", "studio", "laptop")
    made.pages("hub", "studio")
    return made


@proves("notify.one-trouble", "notify.message-names")
def test_three_witnesses_of_one_fault_are_told_once_and_acknowledged_once(fleet):
    for name in ("laptop", "studio", "hub"):
        fleet.opens(name, "smoke:nas", title="nas is away")
        fleet.pass_s(2)
    fleet.pass_s(90, 5)
    assert fleet.told() == [("hub", ("phone",))]
    body = fleet.said[0][2].body
    shown = fleet.incident("hub", "smoke:nas")
    assert sorted(shown["seen_by"]) == ["hub", "laptop", "studio"]
    assert (shown["notified"], shown["by"], shown["times"]) == (1, "", 3)
    assert "nas is away" in body
    assert "incident \u201csmoke:nas\u201d" in body
    command = body.partition("You look at it: muster ")[2].splitlines()[0]
    assert command == "acknowledge smoke:nas --until 8h"
    # By its key, and by the id of each that tells of it.
    row = fleet["hub"].core.tables.rows(INCIDENT, writer=fleet["laptop"].id, open=1)[0]
    for text in ("smoke:nas", incidents.name(row)[:12]):
        found = fleet["studio"].call("target", {"verb": "acknowledge", "object": text})
        assert found["ok"], found
    id = found["value"]["object"]
    args = {"incident": id, "until": "1h"}
    assert fleet["studio"].order("acknowledge", id, args)["ok"]
    fleet.pass_s(6, 1)
    for name in ("hub", "studio", "laptop"):
        # A fourth telling of it, by whomever, is covered as well.
        fleet.opens(name, "smoke:nas", title="nas is away still")
    fleet.pass_s(20 * 60, 10)
    assert fleet.told() == [("hub", ("phone",))]
    assert fleet.incident("laptop", "smoke:nas")["by"] == "alice"
    assert fleet["hub"].call("status", {})["value"]["incidents"] == []
    # The hour is over, and nobody mended it.
    fleet.pass_s(45 * 60, 30)
    assert ("hub", ("mail",)) in fleet.told()
    assert fleet.incident("laptop", "smoke:nas")["by"] == ""


@proves("notify.next-pager", "notify.broken-is-said")
def test_a_pager_that_is_dead_is_stood_in_for_within_ninety_seconds(fleet):
    fleet.dead = {"hub"}
    fleet.world.cut("hub")
    fleet.world.link("studio", "laptop")
    fleet.opens("laptop", "smoke")
    fleet.pass_s(58)
    assert fleet.told() == []
    fleet.pass_s(4)
    assert fleet.told() == [("studio", ("phone",))]
    # The first one comes back, hears what was told, and goes on with what is left.
    fleet.dead = set()
    fleet.world.link("hub", "studio")
    fleet.pass_s(4 * 60, 2)
    assert fleet.told() == [("studio", ("phone",))]
    fleet.pass_s(4 * 60, 2)
    assert fleet.told()[1:] == [("hub", ("mail",))]


@proves("notify.trusted-pagers")
def test_a_member_that_is_no_pager_keeps_nobody_quiet(fleet):
    for level in range(6):
        body = kinds.IncidentNotify(
            key="smoke:x", level=level, to="phone", ok=True, serial="0", reason=""
        )
        fleet.do("laptop", lambda core, body=body: core.append_body(body))
    fleet.opens("laptop", "smoke:x")
    fleet.pass_s(5)
    assert fleet.told() == [("hub", ("phone",))]


@proves("notify.broken-is-said")
def test_a_service_that_fails_is_told_by_another_and_seen_in_status_and_mended(fleet):
    fleet.fails = {"phone": "401 Unauthorized"}
    fleet.opens("laptop", "smoke")
    fleet.pass_s(8)
    assert fleet.told() == [("hub", ("phone",)), ("hub", ("team",))]
    assert "401 Unauthorized" in fleet.said[1][2].body
    # The other pager tells it in its turn.
    shown = fleet["laptop"].call("status", {})["value"]["incidents"]
    assert {each["key"] for each in shown} == {"smoke", BROKEN}
    assert fleet["hub"].core.counters["notify-failed"] == 1
    fleet.fails = {}
    fleet.pass_s(120, 2)
    assert fleet["hub"].core.incidents.is_open(BROKEN), "nobody has tried it since"
    fleet["hub"].step(Paged(0, (("phone", ""),)))
    row = fleet["hub"].core.tables.rows(INCIDENT, key=BROKEN)[0]
    assert (row.open, row.times) == (0, 1)


@proves("notify.broken-is-said")
def test_a_service_that_failed_and_is_taken_out_is_no_incident_any_more(fleet):
    fleet.fails = {"phone": "401 Unauthorized"}
    fleet.opens("laptop", "smoke")
    fleet.pass_s(8)
    hub = fleet["hub"]
    assert hub.core.incidents.is_open(BROKEN)
    fleet.pages("hub", services=tuple(each for each in SERVICES if each.name != "phone"))
    assert not hub.core.incidents.is_open(BROKEN)


@proves("notify.broken-is-said")
def test_where_no_service_works_it_is_tried_ever_later_and_status_says_so():
    fleet = Fleet("hub")
    fleet.pages("hub")
    fleet.fails = dict.fromkeys(("team", "phone", "mail"), "no route")
    fleet.opens("hub", "smoke")
    fleet.pass_s(3 * 60, 2)
    shown = fleet["hub"].call("status", {})["value"]["incidents"]
    (broken,) = [each for each in shown if each["key"] == BROKEN]
    assert "phone" in broken["title"]
    fleet.pass_s(57 * 60, 10)
    # The first step seven times in an hour and the second as often; not every second.
    assert 6 <= len([s for _, s in fleet.told() if s == ("phone",)]) <= 9
    assert len(fleet.said) < 40
    assert fleet["hub"].core.counters["notify-failed"] == len(fleet.said)
    # A test by hand that works is heard of.
    fleet.fails = {}
    fleet["hub"].step(Paged(0, tuple((name, "") for name in ("team", "phone", "mail"))))
    assert not fleet["hub"].core.incidents.is_open(BROKEN)


@proves("notify.flaps")
def test_its_end_is_told_when_it_stays_to_whoever_was_told(fleet):
    fleet.opens("laptop", "smoke")
    fleet.pass_s(5)
    fleet.closes("laptop", "smoke")
    fleet.pass_s(60)
    fleet.opens("laptop", "smoke")
    fleet.pass_s(5)
    assert fleet["hub"].core.tables.rows(INCIDENT, key="smoke")[0].flaps == 1
    fleet.closes("laptop", "smoke")
    fleet.pass_s(9 * 60, 5)
    assert len(fleet.said) == 1
    fleet.pass_s(3 * 60, 5)
    assert fleet.told() == [("hub", ("phone",)), ("hub", ("phone",))]
    assert fleet.said[1][2].title == "over: smoke is bad"


@proves("notify.steps")
@pytest.mark.parametrize("less", ["notice", "warning"])
def test_what_became_graver_calls_and_one_of_a_long_name_calls_once(less):
    fleet = Fleet("hub", "laptop")
    fleet.pages("hub", services=SERVICES[1:2])
    fleet.opens("laptop", "smoke:x", less)
    fleet.pass_s(24 * 3600 if less == "notice" else 60, 600 if less == "notice" else 10)
    assert len(fleet.said) == 1
    fleet.opens("laptop", "smoke:x")
    fleet.opens("laptop", "k" * 200)
    fleet.pass_s(600, 10)
    assert [page.title.partition(":")[0] for *_, page in fleet.said[1:]] == ["critical"] * 2
    assert len(fleet["hub"].core.tables.rows(NOTIFY)) >= 2
    assert not fleet["hub"].core.tables.skipped()


@proves("notify.steps")
def test_what_a_pager_said_counts_here_where_its_entry_does_not(fleet, monkeypatch):
    core = fleet["hub"].core
    monkeypatch.setattr(core, "append_body", lambda _body: None)
    fleet.opens("laptop", "smoke")
    fleet.pass_s(50, 5)
    assert fleet.told() == [("hub", ("phone",))]


@proves("notify.broken-is-said")
def test_a_service_that_this_pager_does_not_have_is_not_broken(fleet):
    fleet["hub"].step(Paged(0, (("phone", ""), ("siren", "there is none"))))
    assert not fleet["hub"].core.incidents.is_open(BROKEN)
    assert fleet["hub"].core.part(pager.Pager).broken == {}


@proves("notify.silenced", "notify.silences-listed")
def test_a_silence_counts_of_whoever_may_and_until_it_ends(fleet):
    hub = fleet["hub"]

    def silence(machine: One, match: str, until: str, **more: Any) -> Any:
        args = {"match": match, "until": until, "why": "work on the line"}
        return machine.call(
            "silence", args, statement=fleet.world.sign("silence", match, machine, args, **more)
        )

    assert silence(fleet["studio"], "smoke*", "20m")["ok"]
    assert silence(hub, "smoke*", "31d")["error"]["kind"] == "Malformed"
    stranger = Operator(b"x" * 32).statement
    assert silence(hub, "fire*", "1h", signer=stranger)["error"]["kind"] == "Denied"
    # Written all the same by a member that lets nobody stop it.
    args = {"match": "fire*", "until": "1h", "why": ""}
    signed = fleet.world.sign("silence", "fire*", fleet["laptop"], args, signer=stranger)
    longer = {**args, "until": "40d"}
    for said, statement in (
        (args, signed),
        (longer, fleet.world.sign("silence", "fire*", fleet["laptop"], longer)),
        ({**args, "why": "other"}, fleet.world.sign("silence", "fire*", fleet["laptop"], args)),
        ({**args, "until": "soon"},
         fleet.world.sign("silence", "fire*", fleet["laptop"], {**args, "until": "soon"})),
    ):  # fmt: skip
        raw = canon.encode({**said, "statement": statement})
        fleet.do("laptop", lambda core, raw=raw: core.append(kinds.INCIDENT_SILENCE, raw))
    reasons = [s.reason for s in fleet["laptop"].core.tables.skipped()]
    assert reasons[-3:] == ["too-long", "other-incident", "bad-body"]
    fleet.opens("laptop", "smoke", "critical")
    fleet.opens("laptop", "fire", "critical")
    fleet.pass_s(60, 2)
    assert [page.title for _, _, page in fleet.said] == ["critical: fire is bad"]
    assert fleet.incident("hub", "smoke")["silenced_ms"]
    assert not fleet.incident("hub", "fire")["silenced_ms"]
    # Whom an operator lets silence one thing silences that one, and no other.
    bob = Operator(b"bob".ljust(32))
    grant = Grant("lag", bob.key, WALL_MS + 86_400_000, "silence")
    raw = sign_give(
        fleet.world.operator.statement, fleet.world.fleet, grant, nonce=bytes(16),
        issued_ms=WALL_MS,
    )  # fmt: skip
    options = {"grant": msgspec.to_builtins(grant), "statement": raw.decode()}
    give = {"to": bob.key, "verb": "silence", "object": "lag"}
    assert hub.order("grant", "silence", give, options=options)["ok"]
    fleet.pass_s(1)
    for match in ("lag", "ice"):
        args = {"match": match, "until": "1h", "why": ""}
        signed = fleet.world.sign("silence", match, fleet["laptop"], args, signer=bob.statement)
        word = canon.encode({**args, "statement": signed})
        fleet.do("laptop", lambda core, raw=word: core.append(kinds.INCIDENT_SILENCE, raw))
    now_ms = hub.core.now.wall_ms
    assert {each.fits for each in hub.core.incidents.silences(now_ms)} == {"smoke*", "lag"}
    ends = {each["match"]: each for each in hub.call("silences", {})["value"]}
    assert list(ends) == ["smoke*", "lag"]
    assert ends["smoke*"]["why"] == "work on the line"
    assert 0 < ends["smoke*"]["until_ms"] - now_ms < 20 * MIN < ends["lag"]["until_ms"] - now_ms
    assert ends["smoke*"]["by"] == hub.core.roster.speaker(fleet.world.operator.key)
    assert silence(hub, "smoke*", "0s")["ok"]
    # One that ended of late still counts for who flaps, and is none that stands.
    assert [each["match"] for each in hub.call("silences", {})["value"]] == ["lag"]
    fleet.pass_s(10, 2)
    assert len(fleet.said) == 2


@proves("notify.few-at-once")
def test_a_full_hour_uses_up_no_machines_part_of_it(fleet):
    made = fleet["hub"].core.part(pager.Pager)
    made._sent.extend([made._core.now.boot_ms] * pager.NOTIFY_PER_HOUR_MAX)
    each = SimpleNamespace(machines=(fleet["laptop"].id,))
    assert not any(made._takes_room([each]) for _ in range(30))
    assert made._has_room_of(fleet["laptop"].id)
    made._sent.clear()
    took = [made._takes_room([each]) for _ in range(30)]
    assert sum(took) == pager.NOTIFY_PER_HOUR_OF_MACHINE_MAX
    assert len(made._sent) == sum(took)


@proves("notify.few-at-once")
def test_many_at_once_are_one_message_and_an_hour_has_enough(fleet, monkeypatch):
    def many(core: Any) -> None:
        for number in range(40):
            core.incidents.open(f"wolf-{number}", "critical", f"wolf {number}")

    fleet.do("laptop", many)
    fleet.pass_s(5)
    assert [page.title for _, _, page in fleet.said] == ["40 things that need a person"]
    lines = fleet.said[0][2].body.splitlines()
    assert len([line for line in lines if "wolf" in line]) == 10
    assert "and 30 more" in lines
    assert len(fleet["hub"].entries(kinds.INCIDENT_NOTIFY)) == 40
    monkeypatch.setattr(pager, "NOTIFY_PER_HOUR_MAX", 1)
    for key in ("late", "later"):
        fleet.opens("laptop", key)
        fleet.pass_s(30, 5)
    assert fleet["hub"].core.counters["notify-held"] >= 2
    # What had no room is one message; the other machine does not wait for that.
    fleet.pass_s(10 * 60, 30)
    bodies = [page.body for name, _, page in fleet.said if name == "hub"]
    assert ("late is" in bodies[1], "later is" in bodies[1]) == (True, False)
    assert any("later is" in page.body for *_, page in fleet.said)


@proves("notify.few-at-once")
def test_who_tells_without_end_leaves_room_for_the_others():
    fleet = Fleet("hub", "laptop")
    fleet.pages("hub", services=SERVICES[1:2])

    for number in range(24):
        fleet.opens("laptop", f"wolf:{number}")
        fleet.pass_s(5, 5)
    fleet.opens("hub", "smoke")
    fleet.pass_s(5, 5)
    assert fleet.said[-1][2].title == "critical: smoke is bad"
    # All of the others are told as well, together.
    fleet.pass_s(15 * 60, 30)
    assert 20 <= len(fleet.said) <= 24
    assert any("things that need" in page.title for *_, page in fleet.said)


@proves("notify.few-at-once")
def test_in_one_message_each_machine_has_its_first_lines():
    fleet = Fleet("hub", "laptop")
    fleet.opens("hub", "ice", "critical")

    def many(core: Any) -> None:
        for number in range(40):
            core.incidents.open(f"wolf-{number}", "critical", f"wolf {number}")

    fleet.do("laptop", many)
    fleet.pages("hub", services=SERVICES[1:2])
    fleet.pass_s(5, 5)
    ((_, _, page),) = fleet.said
    assert "ice is bad" in page.body.splitlines()[0]


@proves("notify.steps", "notify.quiet-hours")
def test_notices_come_in_the_digest_and_warnings_after_the_night():
    fleet = Fleet("hub")
    minute = (WALL_MS + fleet.world.ms) // MIN % 1440
    hours = Hours(quiet=(minute - 5, (minute + 4) % 1440), digest=(minute + 6) % 1440)
    fleet.pages("hub", hours=hours)
    for key, severity in (("one", "notice"), ("two", "notice"), ("slow", "warning")):
        fleet.opens("hub", key, severity)
    fleet.pass_s(3 * 60, 5)
    assert fleet.said == []
    fleet.pass_s(2 * 60, 5)
    assert [page.title for _, _, page in fleet.said] == ["warning: slow is bad"]
    fleet.pass_s(3 * 60, 5)
    assert [page.title for _, _, page in fleet.said][1:] == ["2 notices"]


@proves("notify.runs-are-told")
def test_a_run_that_failed_is_told_once_and_others_where_the_owner_says_so(fleet):
    ended(fleet, "broken", "failed")
    ended(fleet, "fine", "done")
    ended(fleet, "stopped", "cancelled")
    fleet.pass_s(70, 2)
    assert [page.title for _, _, page in fleet.said] == ["run broken: failed"]
    named = {said for *_, page in fleet.said for said in re.findall(r"muster (\S+)", page.body)}
    assert named == {"runs"} <= {name for name, verb in VERBS.items() if not verb.hidden}
    # Another pager, and this one after a start, find it told; with `end` all that ended is news.
    fleet["hub"].step(Paging(SERVICES, ("hub", "studio"), runs="end"))
    fleet.pass_s(70, 2)
    assert [page.title for _, _, page in fleet.said][1:] == ["run fine: done"]
    fleet["hub"].step(Paging(SERVICES, ("hub", "studio"), runs="none"))
    ended(fleet, "again", "failed")
    fleet["studio"].step(Paging(SERVICES, ("hub", "studio"), runs="none"))
    fleet.pass_s(70, 2)
    assert len(fleet.said) == 2


@proves("notify.runs-are-told", "notify.quiet-hours")
def test_a_run_that_ended_in_the_night_is_told_in_the_morning_by_a_pager_that_began_between():
    fleet = Fleet("hub", "laptop")
    minute = (WALL_MS + fleet.world.ms) // MIN % 1440
    # It was told before the night, and is not told again.
    fleet.pages("hub")
    ended(fleet, "evening", "failed")
    fleet.pass_s(70, 10)
    hours = Hours(quiet=(minute + 3, (minute + 303) % 1440))
    fleet.pages("hub", hours=hours)
    fleet.pass_s(3 * 60, 60)
    ended(fleet, "nightly", "failed")
    fleet.pass_s(180 * 60, 600)
    fleet.pages("hub", hours=hours)
    fleet.pass_s(110 * 60, 600)
    assert [page.title for *_, page in fleet.said] == ["run evening: failed"]
    fleet.pass_s(15 * 60, 60)
    titles = [page.title for *_, page in fleet.said]
    assert titles == ["run evening: failed", "run nightly: failed"]


def ended(fleet: Fleet, name: str, outcome: str) -> None:
    """A run of the laptop's that ended so, with an agent's words."""

    def write(core: Any) -> None:
        run = core.draw(16).hex()
        core.append_body(RunOpen(run=run, name=name, spec="", statement=""))
        core.append_body(RunSettle(run=run, outcome=outcome, summary="line\n@everyone <!here>"))

    fleet.do("laptop", write)


@proves("notify.trusted-pagers")
def test_who_has_no_services_or_is_not_named_tells_nobody_anything():
    fleet = Fleet("hub", "studio")
    fleet["hub"].step(Paging((), ("hub",)))
    fleet["studio"].step(Paging(SERVICES, ("hub",)))
    fleet.opens("hub", "smoke")
    fleet.pass_s(180, 5)
    assert fleet.said == []
    # Without names it is this machine alone.
    fleet["studio"].step(Paging(SERVICES))
    fleet.pass_s(10)
    assert fleet.told() == [("studio", ("phone",))]
