"""The register of a schedule as a ref: several machines at once, and what is no register."""

import asyncio
from pathlib import Path

import pytest
from tests.git.repositories import sh
from tests.promise import proves

from muster.errors import Damaged
from muster.git import register
from muster.git.fence import schedule_ref, slot_of

SCHEDULE = "5" * 64
RACERS, SLOTS = 4, 4


@proves("schedule.register")
def test_of_several_that_move_it_at_once_one_does_and_the_others_learn_of_it(tmp_path):
    remote = tmp_path / "remote.git"
    remote.mkdir()
    sh(remote, "init", "-q", "--bare")
    machines = [tmp_path / f"m{n}" for n in range(RACERS)]
    for each in machines:
        each.mkdir()
        sh(each, "init", "-q")

    async def moves(machine: Path, slot: int) -> bytes:
        before = await register.read(machine, str(remote), SCHEDULE)
        assert (slot_of(before.raw) if before.raw else 0) < slot
        raw = b'{"by":"%s","slot":%d}' % (machine.name.encode(), slot)
        now = await register.move(machine, str(remote), SCHEDULE, before.revision, raw)
        assert slot_of(now.raw) == slot
        return now.raw

    async def race() -> None:
        for slot in range(1, SLOTS + 1):
            seen = await asyncio.gather(*(moves(each, slot) for each in machines))
            # All of them say the same: one of them was first.
            assert len(set(seen)) == 1

    asyncio.run(race())


@proves("schedule.register")
def test_where_the_repository_lies_it_is_moved_in_place_and_what_is_too_long_is_refused(tmp_path):
    here = tmp_path / "here.git"
    here.mkdir()
    sh(here, "init", "-q", "--bare")

    async def all_of_it() -> None:
        assert await register.read(here, "", SCHEDULE) == register.Register()
        first = await register.move(here, "", SCHEDULE, "", b'{"slot":1}')
        assert await register.read(here, "", SCHEDULE) == first
        # Whoever read it before learns what it is at now.
        assert await register.move(here, "", SCHEDULE, "", b'{"slot":2}') == first
        await register.move(here, "", SCHEDULE, first.revision, b'{"slot":3}')
        long = tmp_path / "long"
        long.write_bytes(b"x" * 2_000)
        blob = sh(here, "hash-object", "-w", str(long)).strip()
        sh(here, "update-ref", schedule_ref(SCHEDULE), blob)
        with pytest.raises(Damaged, match="more than any keeper writes"):
            await register.read(here, "", SCHEDULE)

    asyncio.run(all_of_it())
