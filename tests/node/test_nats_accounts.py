"""Who is let in at a NATS server of the fleet, and what each can reach: against the real server."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from tests.channel.nats_server import NatsServer
from tests.channel.rigs import run
from tests.channel.test_post import unexpected
from tests.fleet.world import (
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    LAPTOP,
    LAPTOP_RECORD,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
    STUDIO_RECORD,
    record,
)
from tests.promise import proves

from muster.channel.base import Visitor
from muster.fleet import nats_jwt
from muster.fleet.machine import Identity

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
from nats.aio.client import Client
from nats.errors import Error

from muster.channel import nats, nats_client

RECORDS = {each.machine: each for each in (STUDIO_RECORD, BUILD_RECORD, LAPTOP_RECORD)}


def told(*live: Any) -> dict[str, Any]:
    """What the server of the studio is told."""
    claims = nats_jwt.claims(AUTHORITY, STUDIO_RECORD, live)
    return {
        "operator": claims.operator,
        "system_account": claims.system,
        "resolver": "MEMORY",
        "resolver_preload": claims.accounts,
    }


@pytest.fixture
def server(tmp_path: Path):
    with NatsServer(tmp_path, **told(*RECORDS.values())) as server:
        run(keep_boxes(server))
        yield server


def login(server: NatsServer, who: Identity, jwt: str) -> nats_client.Login:
    none: Any = None
    return nats.login(nats.Pass(jwt, server.url), who.signer("nats").sign, none)


async def keep_boxes(server: NatsServer) -> None:
    shown = nats_jwt.keeper_pass(AUTHORITY, STUDIO_RECORD)
    client = nats_client.NatsClient("it", "", lambda: login(server, STUDIO, shown))
    await client.keep_boxes(RECORDS)
    await client.close()


@contextlib.asynccontextmanager
async def inside(server: NatsServer, who: Identity, jwt: str = "") -> AsyncIterator[Client]:
    """A client of NATS that does as it likes, let in as a machine."""
    client, jwt = Client(), jwt or nats_jwt.pass_of(AUTHORITY, RECORDS[who.machine])
    failed: list[Exception] = []

    async def fails(error: Exception) -> None:
        failed.append(error)

    try:
        await client.connect(
            server.url, allow_reconnect=False, connect_timeout=20, error_cb=fails,
            max_reconnect_attempts=1, reconnect_time_wait=0,
            **login(server, who, jwt).options,
        )  # fmt: skip
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def post(server: NatsServer, who: Identity, folder: Path) -> AsyncIterator[nats.NatsPost]:
    """A mailbox as the daemon has it, with the pass in its home."""
    home = folder / who.machine[:8]
    (home / "nats").mkdir(parents=True, exist_ok=True)
    shown = nats.Pass(nats_jwt.pass_of(AUTHORITY, RECORDS[who.machine]), server.url)
    (home / nats.PASS).write_bytes(nats.msgspec.json.encode(shown))
    none: Any = None
    visitor = Visitor(
        who.machine, home, unexpected, who.signer("nats").sign, lambda: none,
        secrets=lambda: dict.fromkeys(RECORDS, b""),
    )  # fmt: skip
    found = nats.open_channel(nats.Options(place="studio"), visitor)
    try:
        yield found
    finally:
        await found.close()


async def bodies(of: nats.NatsPost) -> list[bytes]:
    return [each.body for each in await of.take()]


async def is_refused(work: Awaitable[Any]) -> bool:
    """Whether nobody answers, or it is denied."""
    try:
        await work
    except Error:
        return True
    return False


@proves("node.nats-own-alone")
def test_machines_leave_and_take_with_what_they_were_given(server, tmp_path):
    async def scenario() -> None:
        async with post(server, BUILD, tmp_path) as near, post(server, LAPTOP, tmp_path) as far:
            await near.put(b"one", to=LAPTOP.machine)
            (one,) = await far.take()
            assert one.body == b"one"
            await far.ack([one.id])
            assert await bodies(far) == []
            # Nobody has a mailbox for whom the fleet does not know.
            with pytest.raises(nats.Unreachable, match="no mailbox"):
                await near.put(b"x", to="f" * 64)

    run(scenario())


@proves("channel.post-fair")
def test_at_a_server_of_the_fleet_the_turn_of_a_machine_is_told_by_its_own_subject(
    server, tmp_path
):
    async def scenario() -> None:
        async with (
            post(server, BUILD, tmp_path) as near,
            post(server, STUDIO, tmp_path) as other,
            post(server, LAPTOP, tmp_path) as far,
        ):
            flood = [b"%d" % number for number in range(100)]
            await asyncio.gather(*(near.put(each, to=LAPTOP.machine) for each in flood))
            await other.put(b"of another", to=LAPTOP.machine)
            found = [each.body for each in await far.take(4)]
            assert len(found) == 4
            assert b"of another" in found

    run(scenario())


@proves("node.nats-serves")
def test_a_mailbox_that_nobody_can_pull_from_is_made_whole(server, tmp_path):
    async def scenario() -> None:
        shown = nats_jwt.keeper_pass(AUTHORITY, STUDIO_RECORD)
        async with inside(server, STUDIO, shown) as keeper:
            await keeper.jetstream().delete_consumer(f"MUSTER_BOX_{LAPTOP.machine}", "box")
        await keep_boxes(server)
        async with post(server, BUILD, tmp_path) as near, post(server, LAPTOP, tmp_path) as far:
            await near.put(b"one", to=LAPTOP.machine)
            assert await bodies(far) == [b"one"]

    run(scenario())


@proves("node.nats-own-alone")
def test_nobody_leaves_takes_or_acknowledges_in_the_name_of_another(server, tmp_path):
    me, other, box = BUILD.machine, LAPTOP.machine, f"MUSTER_BOX_{LAPTOP.machine}"

    async def scenario() -> None:
        async with post(server, LAPTOP, tmp_path) as far, inside(server, BUILD) as evil:
            js = evil.jetstream(timeout=2)
            for subject in (f"muster.box.{other}.{other}", f"muster.box.{me}.{STUDIO.machine}"):
                assert await is_refused(js.publish(subject, b"forged"))
            await js.publish(f"muster.box.{other}.{me}", b"mine")
            asked = f"$JS.API.CONSUMER.MSG.NEXT.{box}.box"
            assert await is_refused(evil.request(asked, b'{"batch":1,"no_wait":true}', timeout=2))
            for reply in (f"$JS.ACK.{box}.box.1.1.1.1.0", f"$JS.ACK.d.h.{box}.box.1.1.1.1.0"):
                assert await is_refused(evil.request(reply, b"+ACK", timeout=2))
            assert await bodies(far) == [b"mine"]

    run(scenario())


@proves("node.nats-own-alone")
def test_nobody_makes_reads_or_removes_what_the_server_keeps(server):
    me, box = BUILD.machine, f"MUSTER_BOX_{LAPTOP.machine}"

    async def scenario() -> None:
        async with inside(server, BUILD) as evil:
            for what in (
                "INFO", "STREAM.NAMES", "STREAM.LIST", f"STREAM.INFO.{box}", f"STREAM.PURGE.{box}",
                f"STREAM.DELETE.{box}", f"STREAM.MSG.GET.{box}", f"STREAM.MSG.DELETE.{box}",
                f"DIRECT.GET.{box}", "STREAM.CREATE.X", f"STREAM.UPDATE.{box}",
                f"CONSUMER.CREATE.{box}", f"CONSUMER.DURABLE.CREATE.{box}.evil",
                f"CONSUMER.DELETE.{box}.box", f"CONSUMER.NAMES.{box}",
                f"CONSUMER.DELETE.MUSTER_BOX_{me}.box", f"STREAM.PURGE.MUSTER_BOX_{me}",
                f"STREAM.SNAPSHOT.{box}", "ACCOUNT.PURGE.x",
            ):  # fmt: skip
                try:
                    answer = await evil.request(
                        f"$JS.API.{what}", b'{"seq":1,"name":"X"}', timeout=2
                    )
                except Error:
                    continue
                # Its own account has no JetStream, and says so.
                assert b'"error"' in answer.data, (what, answer.data)

    run(scenario())


@proves("node.nats-own-alone")
def test_nobody_overhears_another_whatever_it_subscribes_to(server, tmp_path):
    async def scenario() -> None:
        async with (
            post(server, LAPTOP, tmp_path) as far,
            post(server, STUDIO, tmp_path) as near,
            inside(server, BUILD) as evil,
        ):
            heard: list[str] = []
            itself = asyncio.Event()

            async def hear(message: Any) -> None:
                heard.append(message.subject)
                itself.set()

            for subject in (
                ">", "muster.>", "*.>", "$JS.>", "$JS.ACK.>", "_INBOX.>", "_R_.>", "$SYS.>",
                f"_INBOX.{LAPTOP.machine}.>", f"muster.box.{LAPTOP.machine}.*", "$G.>", "$SYS.ACCOUNT.>",
            ):  # fmt: skip
                await evil.subscribe(subject, cb=hear)
            await evil.flush()
            await near.put(b"secret", to=LAPTOP.machine)
            (one,) = await far.take()
            await far.ack([one.id])
            await evil.flush()
            assert heard == []
            # And what it is sent itself it does hear.
            await evil.publish("x", b"")
            await evil.flush()
            await asyncio.wait_for(itself.wait(), 20)

    run(scenario())


@proves("node.nats-forging-lands-nowhere")
def test_a_reply_that_names_another_lands_nowhere(server, tmp_path):
    me, other, box = BUILD.machine, LAPTOP.machine, f"MUSTER_BOX_{LAPTOP.machine}"

    async def scenario() -> None:
        async with (
            post(server, LAPTOP, tmp_path) as far,
            post(server, STUDIO, tmp_path) as near,
            inside(server, BUILD) as evil,
        ):
            forged = f"muster.box.{other}.{STUDIO.machine}"
            for reply in (
                forged, f"$JS.API.STREAM.DELETE.{box}", f"$JS.API.STREAM.PURGE.{box}",
                f"$JS.ACK.{box}.box.1.1.1.1.0", f"_INBOX.{other}.x",
            ):  # fmt: skip
                await evil.publish(f"muster.box.{other}.{me}", b"mine", reply=reply)
                ask = f"$JS.API.CONSUMER.MSG.NEXT.MUSTER_BOX_{me}.box"
                await near.put(reply.encode(), to=me)
                await evil.publish(ask, b'{"batch":5,"no_wait":true}', reply=reply)
                await evil.flush()
            await near.put(b"last", to=other)
            # The mailbox is there, with what was left in its own name alone.
            found = await bodies(far)
            found.remove(b"last")
            assert set(found) == {b"mine"}

    run(scenario())


@proves("node.nats-forging-lands-nowhere")
def test_a_name_that_is_taken_by_another_keeps_nothing_away(server, tmp_path):
    async def scenario() -> None:
        async with (
            post(server, LAPTOP, tmp_path) as far,
            post(server, STUDIO, tmp_path) as near,
            inside(server, BUILD) as evil,
        ):
            name = nats.hashlib.sha256(b"real").hexdigest()
            subject = f"muster.box.{LAPTOP.machine}.{BUILD.machine}"
            await evil.jetstream().publish(subject, b"evil", headers={"Nats-Msg-Id": name})
            await near.put(b"real", to=LAPTOP.machine)
            assert set(await bodies(far)) == {b"evil", b"real"}

    run(scenario())


@proves("node.nats-members-alone")
def test_whoever_is_no_member_or_shows_what_is_not_its_own_is_not_let_in(server):
    stranger = record(BUILD, "build", authority=OTHER_AUTHORITY)
    mine, theirs = (nats_jwt.pass_of(AUTHORITY, r) for r in (BUILD_RECORD, LAPTOP_RECORD))
    head, body, signature = mine.split(".")
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    more = raw.replace(b'"subs":-1', b'"subs":-2')
    assert more != raw
    earlier = nats_jwt.pass_of(AUTHORITY, record(BUILD, "build", issued_ms=NOW - 3_600_000))

    async def scenario() -> None:
        async with inside(server, BUILD) as client:
            assert client.is_connected
        for who, jwt in (
            (BUILD, nats_jwt.pass_of(OTHER_AUTHORITY, stranger)),
            (BUILD, theirs),
            (BUILD, earlier),
            (BUILD, nats_jwt.keeper_pass(AUTHORITY, STUDIO_RECORD)),
            (STUDIO, nats_jwt.keeper_pass(AUTHORITY, BUILD_RECORD)),
            (BUILD, f"{head}.{base64.urlsafe_b64encode(more).decode().rstrip('=')}.{signature}"),
            (BUILD, "nothing"),
        ):
            with pytest.raises(Error):
                async with inside(server, who, jwt):
                    pass
        nobody = Client()
        with pytest.raises(Error):
            await nobody.connect(server.url, allow_reconnect=False, max_reconnect_attempts=1,
                                 reconnect_time_wait=0, error_cb=quietly)  # fmt: skip
        await nobody.close()

    run(scenario())


async def quietly(_: Exception) -> None:
    pass


@proves("node.nats-member-bounds")
def test_a_member_has_so_many_connections_and_subscriptions_and_no_more(server):
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as held:
            for _ in range(8):
                client = await held.enter_async_context(inside(server, BUILD))
            with pytest.raises(Error):
                await held.enter_async_context(inside(server, BUILD))
            # Others, and who looks after the mailboxes, come in as ever.
            await held.enter_async_context(inside(server, LAPTOP))
            await keep_boxes(server)
            with contextlib.suppress(Error):
                for number in range(80):
                    await client.subscribe(f"x.{number}")
                    # One by one: who still writes when it is refused may end before it reads why.
                    await client.flush()
            assert "maximum subscriptions exceeded" in str(client.last_error)

    run(scenario())
