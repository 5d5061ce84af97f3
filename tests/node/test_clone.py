"""Two copies of one machine, and one machine that was set back: told apart without a clock."""

from tests.node.cores import Cores, One
from tests.promise import proves

from muster.fleet.folds import INCIDENT
from muster.log.stream import FLEET, Incarnation
from muster.node.incarnations.clone import CloneDetector
from muster.node.incarnations.lives import Lives
from muster.node.installation import resume_incarnation
from muster.node.replica.forks import Regressed
from muster.store.mark import Mark


def alarms(world: Cores) -> set[str]:
    rows = world["hub"].core.tables.rows(INCIDENT)
    return {r.title for r in rows if "two copies" in r.title}


def twin_of(world: Cores, image: bytes, *, answers: bool = True) -> One:
    """A copy of studio's home, started elsewhere: it opens an incarnation.

    One that does not answer is of an older version, which knows nothing of lives.
    """
    twin = One(world, "studio", 1)
    twin.name = "twin"
    world.machines["twin"] = twin
    twin.incarnation = Incarnation("7" * 32)
    twin.boot(image)
    if not answers:
        twin.core.part(Lives).heard = lambda *_: None
    world.link("hub", "twin")
    return twin


def linked() -> Cores:
    """studio goes on, after a restart, with what it wrote before."""
    world = Cores("hub", "studio")
    world.restart("studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    return world


@proves("node.cloned-home")
def test_a_machine_that_was_set_back_while_its_clock_jumped_is_no_pair_of_copies():
    """The incarnation that it lost began later, by the clocks, than the one that goes on."""
    world = linked()
    studio = world["studio"]
    before = studio.core.store.image()
    world.ms += 3_600_000
    with studio.core.store.transaction():
        studio.core.now = world.now()
        studio.core.tell(Regressed(studio.core.membership.own(FLEET), "for this test"))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    world.pass_ms(500)
    assert studio.order("send", "all", {"text": ["lost"], "to": "all"})["ok"]
    world.pass_ms(500)
    world.ms -= 3_600_000
    studio.incarnation = Incarnation("5" * 32)
    world.restart("studio", before)
    world.link("hub", "studio")
    world.pass_ms(4_000)
    world.ms += 7_200_000
    for _ in range(3):
        assert studio.order("send", "all", {"text": ["on"], "to": "all"})["ok"]
        assert world["hub"].order("send", "all", {"text": ["too"], "to": "all"})["ok"]
        world.pass_ms(500)
    assert alarms(world) == set()


@proves("node.cloned-home")
def test_two_copies_that_run_at_once_say_so_themselves():
    world = linked()
    old = world["studio"].core.membership.incarnation
    twin_of(world, world["studio"].core.store.image())
    world.pass_ms(3_000)
    assert len(alarms(world)) == 1
    assert "studio" in alarms(world).pop()
    assert world["studio"].core.membership.incarnation != old, "it cannot know which one it is"
    opened = world["hub"].entries("machine.open")
    world.pass_ms(10_000)
    assert world["hub"].entries("machine.open") == opened, "they do not go on opening more"


@proves("node.cloned-home")
def test_a_copy_that_keeps_quiet_is_given_away_by_what_it_answers():
    world = linked()
    hub, studio = world["hub"], world["studio"]
    twin = twin_of(world, studio.core.store.image(), answers=False)
    twin.core.part(CloneDetector)._told.add(studio.id)
    world.pass_ms(3_000)
    assert alarms(world) == set()
    for machine in (twin, studio):
        answer = hub.order("send", "all", {"text": ["are you there?"], "to": "all"})
        world.pass_ms(500)
        message = str(answer["value"]["message"])
        assert machine.order("ack", message, {"message": message})["ok"]
        world.pass_ms(500)
        assert len(alarms(world)) == (machine is studio)


@proves("node.cloned-home")
def test_after_a_start_that_incarnation_goes_on_in_which_this_database_wrote_last():
    """One that came back from a peer may be younger, by its clock."""
    world = linked()
    studio = world["studio"]
    old = studio.core.membership.incarnation
    twin_of(world, studio.core.store.image())
    studio.core.part(CloneDetector).born.add(old)
    world.ms += 1_000
    world.pass_ms(3_000)
    assert studio.core.membership.incarnation == old
    store = studio.core.store
    assert any(s.incarnation == "7" * 32 and store.log.size(s) for s in store.log.streams()), (
        "it is here"
    )
    ours = {str(s): store.log.size(s) for s in store.log.streams() if s.incarnation == old}
    mark = Mark(old, ours, "installation", "boot", "0", 0)
    assert resume_incarnation(store, mark, "installation", "0") == (old, ())


@proves("node.cloned-home")
def test_what_others_knew_of_the_copies_outlasts_their_restart():
    """The hub was started again between the openings and the answers that give the copies away."""
    world = linked()
    hub, studio = world["hub"], world["studio"]
    twin = twin_of(world, studio.core.store.image(), answers=False)
    twin.core.part(CloneDetector)._told.add(studio.id)
    world.pass_ms(3_000)
    hub.incarnation = hub.core.membership.incarnation
    world.restart("hub")
    world.link("hub", "studio")
    world.link("hub", "twin")
    world.pass_ms(4_000)
    assert alarms(world) == set()
    for machine in (twin, studio):
        answer = hub.order("send", "all", {"text": ["are you there?"], "to": "all"})
        world.pass_ms(500)
        message = str(answer["value"]["message"])
        assert machine.order("ack", message, {"message": message})["ok"]
        world.pass_ms(500)
        assert len(alarms(world)) == (machine is studio)
