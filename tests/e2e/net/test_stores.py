"""A bucket of another store than the one that all other tests of it use, on a host of its own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import until
from tests.e2e.net import servers
from tests.e2e.net.stage import ROOT, Net, require
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

# What two machines do in a bucket, on one host.
MEETS = """
import asyncio, sys, time
from pathlib import Path
from muster.channel import cloud
from muster.channel.base import Visitor
from muster.errors import Broken

place, key, secret = sys.argv[1:]

def post(machine, secret=secret, off_ms=0):
    variables = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    visitor = Visitor(
        machine, Path("/"), lambda what, error: print("survived", what, error),
        variables=lambda _: variables, wall_ms=lambda: time.time_ns() // 1_000_000 + off_ms,
    )
    return cloud.open_channel(cloud.Options(place=place), visitor)

async def main():
    near, far = post("near"), post("far")
    sent = {b"%d" % n * 1000 for n in range(20)}
    for raw in sorted(sent) * 2:
        await near.put(raw, to="far")
    seen = set()
    while taken := await far.take(7):
        seen |= {each.body for each in taken}
        await far.ack([each.id for each in taken])
    await far.ack([each.id for each in taken])
    print("all came", seen == sent, await far.take(), await near.take())
    print("tidied by the store", await near._is_tidied_by_the_store())
    for other in (post("near", secret="another" * 4), post("near", off_ms=-3_600_000)):
        try:
            await other.put(b"x", to="far")
        except Broken as error:
            print(error)
        await other.close()
    await near.close()
    await far.close()

asyncio.run(main())
"""


@pytest.fixture
def net() -> Iterator[Net]:
    require()
    with Net("laptop", "nas") as net:
        yield net


@proves("channel.cloud-other-stores")
def test_a_store_that_knows_more_of_s3_carries_packets_and_removes_what_is_old(
    net: Net, tmp_path: Path
):
    with servers.s3(net, "nas", tmp_path / "s3", "weed") as nas:
        # It listens before its parts have found each other.
        until(lambda: nas.ask("laptop", "PUT", "/shared")[0] == 200, nas.log, within_s=60)
        until(lambda: nas.ask("laptop", "PUT", "/shared/one", "1")[0] == 200, nas.log, within_s=60)
        said = net.exec(
            "laptop", [sys.executable, "-c", MEETS, f"{nas.url}/shared", nas.key, nas.secret],
            cwd=ROOT,
        ).splitlines()  # fmt: skip
        assert said[:2] == ["all came True [] []", "tidied by the store True"], said
        assert "refuses this machine (403 SignatureDoesNotMatch)" in said[2]
        assert "wrong clock (RequestTimeTooSkewed): this machine's is" in said[3]
        assert nas.secret not in "".join(said)
        assert nas.ask("laptop", "GET", "/shared/one") == (200, "1")
