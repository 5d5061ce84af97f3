"""Leases at a cluster of the fleet's own: each machine writes in its own name, and reads; no more."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from tests.channel.rigs import run
from tests.fleet.world import AUTHORITY, BUILD, LAPTOP, STUDIO, STUDIO_RECORD
from tests.promise import proves

from muster.errors import Exhausted, Unreachable
from muster.fleet import nats_jwt

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
from nats.errors import Error
from tests.node.nats_servers import CLUSTER, RECORDS, Servers

from muster.channel.nats_lease import STREAM, Leased, NatsLeases
from muster.node.engine.told import cluster_id


@pytest.mark.timeout(180)
@proves("node.nats-leases")
def test_a_machine_writes_leases_in_its_own_name_at_a_cluster_and_nothing_else(tmp_path: Path):
    async def scenario(servers: Servers) -> None:
        jwt = nats_jwt.keeper_pass(AUTHORITY, STUDIO_RECORD, cluster_id(CLUSTER))
        keeper = NatsLeases("the cluster", "", lambda: servers.login(STUDIO, jwt))
        kept = False
        while not kept:
            with contextlib.suppress(Unreachable, Exhausted):
                # Also where it is there for other machines.
                await keeper.keep([STUDIO.machine], change=True)
                await keeper.keep(RECORDS, change=True)
                await keeper.keep_boxes(RECORDS, len(CLUSTER))
                kept = True
            await asyncio.sleep(0.2)
        async with servers.posts() as posts:
            build, laptop = (posts[who.machine].leases() for who in (BUILD, LAPTOP))
            of = STUDIO.machine
            revision = await build.write(of, b"one", 0)
            assert revision is not None
            assert await laptop.write(of, b"two", 0) is None
            there = await laptop.newest(of)
            assert there is not None
            assert (there.revision, there.by, there.said) == (revision, BUILD.machine, b"one")
            async with laptop._reached() as client:
                # A name of another machine's, and work of nobody.
                for subject in (
                    f"muster.lease.{of}.{BUILD.machine}",
                    f"muster.lease.{'f' * 64}.{LAPTOP.machine}",
                ):
                    with pytest.raises(Error):
                        await client.request(subject, b"x", timeout=2)
                # What only the keeper may: its own account has nothing of the kind.
                for what, said in (
                    ("DELETE", b""),
                    ("PURGE", b""),
                    ("MSG.DELETE", b'{"seq":1}'),
                    ("UPDATE", b"{}"),
                ):
                    asked = await client.request(f"$JS.API.STREAM.{what}.{STREAM}", said, timeout=2)
                    assert "not enabled for account" in asked.data.decode()
            assert await laptop.newest(of) == there
            assert await laptop.write(of, b"two", revision) is not None
            # What each wrote comes over the border of accounts, all of it.
            newest, written = await build.last_of(of, [BUILD.machine, LAPTOP.machine, "f" * 64])
            assert newest > revision
            assert {(each.by, each.revision, each.said) for each in written} == {
                (BUILD.machine, revision, b"one"), (LAPTOP.machine, newest, b"two"),
            }  # fmt: skip
            assert await build.last_of(of, [BUILD.machine]) == (
                newest, [Leased(revision, BUILD.machine, b"one")],
            )  # fmt: skip
            assert await build.last_of(LAPTOP.machine, [BUILD.machine]) == (0, [])
            await build.close()
            await laptop.close()
        await keeper.close()

    with Servers(tmp_path) as servers:
        run(scenario(servers), within_s=150)
