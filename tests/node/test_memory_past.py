"""What was known at past moments, by whom, and after a restored backup: through real cores.

`python -m tests.node.test_memory_past --moments 500` is the long form of the first.
"""

import argparse
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.node.cores import Cores, One
from tests.node.test_doubt import marked, set_back
from tests.node.test_memory import KEYS, NAMES, act, remember
from tests.promise import proves

from muster.limits import CONFIRM_MS
from muster.log.entry import EntryId
from muster.memory.fold import ERASED, OVER, VERSION
from muster.memory.state import Record, RecordName, Version, records, versions
from muster.node.services.memory import Memory, proof_of


def everything(one: One) -> dict[EntryId, Version]:
    """All versions there are, out of all rows: no question is asked that a key could narrow."""
    tables = one.core.tables
    rows = [tables.rows(each) for each in (VERSION, OVER, ERASED)]
    return {each.id: each for each in versions(*rows, partial(proof_of, one.core))}


def naive(every: dict[EntryId, Version], ids: set[EntryId]) -> dict[RecordName, Record]:
    """What counted when these were known, as all of them read at once tell it."""
    return dict(records(every[id] for id in ids))


def asked(one: One, until: int) -> dict[RecordName, Record]:
    part = one.core.part(Memory)
    return {name: record for key in KEYS for name, record in part.records(key, until).items()}


def moments(seed: int, count: int) -> int:
    """Let three machines remember; ask for each moment again. How many were asked and right."""
    draw, world = random.Random(seed), Cores(*NAMES)
    for one, other in (("hub", "studio"), ("hub", "build"), ("studio", "build")):
        world.link(one, other)
    world.pass_ms(3_000)
    hub, then = world["hub"], list[tuple[int, set[EntryId], dict[RecordName, Record]]]()
    for _ in range(count):
        act(world, draw, erases=False)
        world.pass_ms(draw.choice((0, 100, 300)))
        every = everything(hub)
        told = naive(every, {*every})
        assert asked(hub, hub.core.log.admissions) == told
        then.append((hub.core.log.admissions, {*every}, told))
    for until, _, told in then:
        assert asked(hub, until) == told
    for _ in hub.core.store.rebuild():
        pass
    for until, _, told in then:
        assert asked(hub, until) == told, "after a rebuild"
    # What is erased since is erased in the past, too; everything else is as it was.
    for _ in range(3):
        victim = draw.choice(sorted(everything(hub)))
        assert hub.order("forget", victim.hex(), {"version": victim.hex()})["ok"]
    world.pass_ms(1_000)
    every, gone = everything(hub), 0
    for until, ids, told in then:
        found = naive(every, ids)
        assert asked(hub, until) == found, "after an erasure"
        gone += found != told
    assert gone, "the erasures were of something"
    for _ in hub.core.store.rebuild():
        pass
    for until, ids, _ in then:
        assert asked(hub, until) == naive(every, ids), "after a rebuild without the bodies"
    return len(then)


@proves("memory.as-it-was")
def test_every_moment_is_told_as_it_was_also_after_a_rebuild_and_as_erased_after_an_erasure():
    assert moments(7, 40) == 40


# --- whose disk has what -----------------------------------------------------------------------

SCOPES = ("fleet", "private", "thread:plans")


def on_disk(folder: Path, one: One, word: str) -> list[str]:
    """The files of a machine in which a word stands: its log, its index, and what is beside them."""
    files = sorted(folder.glob(f"{one.name}.*"))
    assert any(file.name.endswith("index.db") for file in files)
    return [file.name for file in files if word.encode() in file.read_bytes()]


@proves("memory.scopes-do-not-leak")
def test_a_word_is_on_the_disks_of_those_alone_who_may_know_it(tmp_path):
    names = ("hub", "studio", "build", "laptop")
    world = Cores(*names, folder=tmp_path)
    for name in names[1:]:
        world.link("hub", name)
    world.link("studio", "build")
    world.pass_ms(4_000)
    hub = world["hub"]

    def members(**how: list[str]) -> None:
        assert hub.order("thread", "plans", {"name": "plans", **how})["ok"]
        world.pass_ms(1_000)

    members(add=["studio", "laptop"])
    words = {scope: f"canary{number}xq" for number, scope in enumerate(SCOPES)}
    for scope, word in words.items():
        more = {} if scope == "fleet" else {"scope": scope}
        # Not in the key: a person's order names that, and the whole fleet reads orders.
        said = remember(hub, f"of/{scope[:5]}", f"here sings {word}", **more)
        version = said["value"]["version"]
        assert hub.order("refute", version, {"version": version, "reason": [f"no {word}"]})["ok"]
        remember(hub, f"again/{scope[:5]}", f"{word} sings again", tag=[f"t:{word}"], **more)
    world.pass_ms(3_000)
    members(remove=["laptop"])
    late = "canarylatexq"
    remember(hub, "late", f"here sings {late}", scope="thread:plans")
    # Everybody asks, so that every index has taken in what there is.
    for name in names:
        for word in (*words.values(), late):
            found = world[name].call("recall", {"words": [word], "all": True})
            assert found["ok"]
    world.pass_ms(3_000)
    reads = {
        name: [s for s in SCOPES if on_disk(tmp_path, world[name], words[s])] for name in names
    }
    assert reads == {
        "hub": [*SCOPES],
        "studio": ["fleet", "thread:plans"],
        "build": ["fleet"],
        "laptop": ["fleet", "thread:plans"],
    }
    assert {name for name in names if on_disk(tmp_path, world[name], late)} == {"hub", "studio"}
    # What a member was sent before it was put out it may hold; it is told nothing of it any more.
    answer = world["laptop"].call("recall", {"words": [words["thread:plans"]], "all": True})
    assert answer["value"] == []


# --- a restored backup -------------------------------------------------------------------------


def puts(one: One) -> list[bytes]:
    return sorted(each.body or b"" for each in one.entries("memory.put"))


@proves("memory.one-state-everywhere", "memory.refuted-stays-refuted")
def test_a_restored_backup_writes_nothing_twice_and_brings_no_refuted_text_back():
    world = Cores("hub", "studio", "lap")
    world.link("hub", "studio")
    world.link("hub", "lap")
    world.pass_ms(CONFIRM_MS + 500)
    hub, studio = world["hub"], world["studio"]
    wrong = remember(studio, "build/flag", "pass --no-lto")["value"]["version"]
    world.pass_ms(500)
    image = studio.core.store.image()
    remember(studio, "main/port", "it is 7447")
    world.pass_ms(500)
    args = {"version": wrong, "reason": ["it is gone"]}
    assert hub.order("refute", wrong, args)["ok"]
    secret = remember(hub, "a/secret", "swordfish")["value"]["version"]
    world.pass_ms(500)
    assert hub.order("forget", secret, {"version": secret})["ok"]
    world.pass_ms(500)
    before, sizes = puts(hub), marked(studio)
    world.cut("studio")
    studio = set_back(world, "studio", image, sizes)
    # As it was then, it knows the text and no refutation; nobody is told so by it.
    world.link("hub", "studio")
    world.pass_ms(CONFIRM_MS + 2_000)
    for one in (hub, studio, world["lap"]):
        assert puts(one) == before, one.name
        assert state(one, "build/flag") == {"refuted"}
        assert state(one, "main/port") == {"active"}
        assert state(one, "a/secret") <= {"erased"}
        assert not any(b"swordfish" in (each.body or b"") for each in one.entries("memory.put"))
    again = remember(studio, "other/flag", "Pass --no-lto.")
    assert again["value"]["state"] == "refuted"
    first = remember(studio, "main/tests", "they are in tests/")["value"]["version"]
    world.pass_ms(1_000)
    assert [each["version"] for each in hub.call("memory", {"key": "main/tests"})["value"]] == [
        first
    ]
    assert len(puts(hub)) == len(before) + 2


def state(one: One, key: str) -> set[str]:
    answer: Any = one.call("memory", {"key": key})
    return {each["state"] for each in answer.get("value", [])}


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.node.test_memory_past")
    parser.add_argument("--moments", type=int, default=500, help="how many, fifty of each history")
    started, count = time.perf_counter(), 0
    most = parser.parse_args().moments
    for seed in range(100, 100 + -(-most // 50)):
        count += moments(seed, min(50, most - count))
    print(
        f"{count} moments, each asked five times, in {time.perf_counter() - started:.0f} s: all equal"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
