"""What machines know, through real cores."""

import random

from tests.node.cores import Cores
from tests.promise import proves

from muster.memory.fold import ERASED, OVER, VERSION
from muster.memory.kinds import MemoryErase, MemoryPut, MemoryRefute
from muster.memory.state import records, versions
from muster.node.services.memory import Memory

NAMES = ("hub", "studio", "build")
KEYS = ("a", "b", "c")
TEXTS = ("use npm", "use pnpm", "the port is 7447", "pass --no-lto")


def write(world: Cores, name: str, body: object) -> None:
    core = world[name].core
    with core.store.transaction():
        core.now = world.now()
        core.append_body(body, actor="claude@" + name)
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)


def act(world: Cores, draw: random.Random) -> None:
    """One machine writes down, refutes or erases something that it knows."""
    name, key = draw.choice(NAMES), draw.choice(KEYS)
    found = list(world[name].core.part(Memory).records(key).values())
    heads = [head for record in found for head in record.heads]
    over = [head.id.hex() for head in heads[: draw.randint(0, 2)]]
    chance = draw.random()
    if chance < 0.6 or not heads:
        write(world, name, MemoryPut(key, draw.choice(TEXTS), over))
    elif chance < 0.8:
        write(world, name, MemoryRefute(key, [heads[0].id.hex()], "wrong"))
    else:
        one = draw.choice(heads)
        kept = MemoryErase(
            one.id.hex(),
            "refuted" if one.state == "refuted" else "erased",
            key=one.key,
            over=[each.hex() for each in sorted(one.over)],
            print=one.print.hex(),
        )
        write(world, name, kept)


def of_everything(core) -> dict:
    """What counts by all rows that there are."""
    tables = core.tables
    rows = [tables.rows(each) for each in (VERSION, OVER, ERASED)]
    return dict(records(versions(*rows, lambda _row: False)))


@proves("memory.one-state-everywhere")
def test_what_counts_under_a_key_is_the_same_on_each_machine_and_as_if_all_were_read():
    for seed in range(6):
        draw, world = random.Random(seed), Cores(*NAMES)
        for one, other in (("hub", "studio"), ("hub", "build"), ("studio", "build")):
            world.link(one, other)
        world.pass_ms(3_000)
        for _ in range(25):
            act(world, draw)
            if draw.random() < 0.5:
                world.pass_ms(200)
        world.pass_ms(3_000)
        wanted = of_everything(world["hub"].core)
        assert wanted
        for name in NAMES:
            core = world[name].core
            assert of_everything(core) == wanted
            found = [core.part(Memory).records(key) for key in KEYS]
            assert {k: v for each in found for k, v in each.items()} == wanted, (seed, name)
