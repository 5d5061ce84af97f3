"""What a machine says of itself, in entries that older machines read the first of."""

import msgspec
from msgspec import to_builtins
from tests.fleet.world import BUILD, NOW, STUDIO, small_fleet
from tests.promise import proves

from muster.fleet import kinds
from muster.fleet.facts import Card, Facts, Logins, Reach, Wake, Way, told
from muster.log import canon
from muster.log.kind import KINDS

WHOLE = Facts(
    "linux", "x86_64", cpus=4, memory_mib=8192, gpus=("a100",), tools={"git": "2"},
    labels=("fast",), agents={"shell": ""}, repositories=("main",), slots=3, muster="0.2",
    logins={"claude": "yes"}, drivers={"claude": "acp"}, reach=(Way("http", "10.0.0.2:7447"),),
    cards=(Card("02:00:00:00:00:01", ("10.0.0.0/24",), wakes=True),),
)  # fmt: skip
BESIDE = {
    kinds.MACHINE_LOGINS: Logins(WHOLE.logins, WHOLE.drivers),
    kinds.MACHINE_REACH: Reach(WHOLE.reach),
    kinds.MACHINE_WAKE: Wake(WHOLE.cards),
}


@proves("fleet.roster-order")
def test_what_is_said_in_several_entries_is_read_as_it_was_in_whatever_order_they_come():
    bodies = told(to_builtins(WHOLE))
    assert bodies.keys() == {kinds.MACHINE_FACTS, *BESIDE}
    # The facts alone hold no field of which a machine of before 0.2 knows nothing.
    assert not {"logins", "drivers", "reach", "cards"} & bodies[kinds.MACHINE_FACTS].keys()
    for kind, body in BESIDE.items():
        assert bodies[kind] == to_builtins(body)
    for order in (list(bodies), list(reversed(bodies))):
        world = small_fleet()
        for kind in order:
            world.write(BUILD, kind, bodies[kind])
        assert world.skipped == []
        assert world.roster.facts == {BUILD.machine: WHOLE}
    # Of each kind the newest counts, by itself, of this machine alone.
    world.write(BUILD, kinds.MACHINE_REACH, {"reach": []}, now_ms=NOW + 1)
    world.write(STUDIO, kinds.MACHINE_WAKE, {"cards": []}, now_ms=NOW + 2)
    assert world.roster.facts == {BUILD.machine: msgspec.structs.replace(WHOLE, reach=())}


@proves("fleet.roster-order", "fleet.folds-total")
def test_who_says_little_says_all_of_it_and_nothing_at_all_is_no_entry():
    assert told({}) == {}
    bodies = told({"os": "linux", "arch": "x86_64"})
    found = {kind: KINDS[kind].body for kind in bodies}
    for kind, body in bodies.items():
        read = canon.decode_as(canon.encode(body), found[kind], kind, size_max=1_000, lenient=True)
        assert read in (Facts("linux", "x86_64"), Logins(), Reach(), Wake())
    # What no machine has is no fact; nothing changes.
    world = small_fleet()
    for kind, body in (
        (kinds.MACHINE_FACTS, {"os": "linux"}), (kinds.MACHINE_REACH, {"reach": [{"channel": "../x"}]}),
        (kinds.MACHINE_WAKE, {"cards": [{"mac": "02:00"}]}), (kinds.MACHINE_LOGINS, {"logins": 1}),
    ):  # fmt: skip
        world.write(BUILD, kind, body)
    assert world.skipped == ["bad-body"] * 4
    assert world.roster.facts == {}
