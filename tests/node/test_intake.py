"""What is taken of one writer: a history at once, then so much a minute, and nobody else waits."""

from tests.node.cores import Cores
from tests.promise import proves

from muster.limits import INTAKE_BYTES_MAX, INTAKE_BYTES_PER_MINUTE
from muster.log.stream import MachineId
from muster.node.replica.intake import Intake

ME, BUILD, STUDIO = MachineId("a" * 64), MachineId("b" * 64), MachineId("c" * 64)
PART = 256 * 1024


def taken(intake: Intake, writer: MachineId, now_ms: int, most: int) -> int:
    return sum(intake.admits(writer, PART, now_ms) for _ in range(most)) * PART


@proves("node.intake-is-bounded")
def test_a_history_comes_at_once_and_then_so_much_a_minute():
    intake = Intake(ME)
    assert taken(intake, BUILD, 0, 4_000) == INTAKE_BYTES_MAX
    assert not intake.admits(BUILD, PART, 1)
    assert intake.held_back == {BUILD}
    total = 0
    for minute in range(1, 11):
        total += taken(intake, BUILD, minute * 60_000, 4_000)
    assert abs(total - 10 * INTAKE_BYTES_PER_MINUTE) <= 10 * PART


@proves("node.intake-is-bounded")
def test_small_pauses_add_up():
    intake = Intake(ME)
    taken(intake, BUILD, 0, 4_000)
    got = sum(intake.admits(BUILD, 1_000, ms) for ms in range(0, 60_000, 3))
    assert abs(got * 1_000 - INTAKE_BYTES_PER_MINUTE) < INTAKE_BYTES_PER_MINUTE // 50


@proves("node.intake-is-bounded")
def test_nobody_else_waits_and_our_own_words_never_do():
    intake = Intake(ME)
    taken(intake, BUILD, 0, 4_000)
    assert intake.admits(STUDIO, PART, 0)
    assert taken(intake, ME, 0, 4_000) == 4_000 * PART
    intake.forget(BUILD)
    assert intake.held_back == set()


@proves("node.intake-is-bounded")
def test_what_is_held_back_comes_later_and_a_person_is_told_once(monkeypatch):
    monkeypatch.setattr("muster.node.replica.intake.INTAKE_BYTES_MAX", 40_000)
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    world.link("hub", "studio")
    world.pass_ms(1_000)
    for part in range(8):
        with studio.core.store.transaction():
            for number in range(4):
                body = b'{"text":"%s"}' % (b"x" * 1_000 + b"%d" % (4 * part + number))
                studio.core.append("note.long", body)
            studio.core._settle_down()
            studio.core._sign()
        world.carry_out(studio, studio.core._released())
        world.drain()
    world.pass_ms(1_000)
    assert hub.core.counters["entries-held-back"]
    told = [e for e in hub.entries("incident.open") if b"intake-" in (e.body or b"")]
    assert len(told) == 1
    world.pass_ms(20_000)
    assert len(hub.entries("note.long")) == 32, "nothing of it was lost"


@proves("node.intake-is-bounded")
def test_what_follows_a_segment_that_was_held_back_is_not_asked_for_again_and_again(monkeypatch):
    monkeypatch.setattr("muster.node.replica.intake.INTAKE_BYTES_MAX", 40_000)
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    world.link("hub", "studio")
    world.pass_ms(1_000)
    for part in range(40):
        with studio.core.store.transaction():
            studio.core.append("note.long", b'{"text":"%s"}' % (b"x" * 4_000 + b"%d" % part))
            studio.core._settle_down()
            studio.core._sign()
        world.carry_out(studio, studio.core._released())
    world.drain()
    # Forty segments came, of which most found no room: each was looked at once, or offered once more.
    assert 0 < hub.core.counters["entries-held-back"] < 10
