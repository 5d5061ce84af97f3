"""Each channel beside what it stands on, used raw in the same run: what carrying costs, idle.

A mailbox is given a sealed parcel with one frame of a message: writing, signing, sealing and
leaving it are ours. What it stands on is given as many bytes by a plain program: a publish that
JetStream acknowledges, a file that is synced and renamed, an object that is put, a commit that is
pushed. A frame goes through sshd and back, beside a program that is run there and says back what it
is given. One of ours and one of theirs take turns.
"""

import asyncio
import contextlib
import hashlib
import http.client
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.channel import rigs, sshd
from tests.channel.nats_server import NatsServer
from tests.channel.store import BUCKET, ENV, KEY, SECRET, Store
from tests.e2e.net.s3 import signed

from bench.figure import Figure, p50
from muster.channel import cloud, drop, git, sealed
from muster.channel.base import Post, Visitor
from muster.channel.frame import Type, encode
from muster.fleet.machine import Authority, Identity
from muster.fleet.parcel import FRAME, Heard, Item, write_parcel
from muster.node.host import clock

TIMES, SHORT = 400, 60
FRAME_BYTES: Final = 700
OVERHEAD_MAX: Final = 1.5


class Turns(NamedTuple):
    """What is done in turn, and what is promised of the two."""

    raw_name: str
    ours: Callable[[], Awaitable[object]]
    raw: Callable[[bytes], Awaitable[object]]
    promise: float = OVERHEAD_MAX
    fewer: int = 1
    rest_s: float = 0.002


class Parcels:
    """Parcels of one machine for another, as a daemon writes them."""

    def __init__(self) -> None:
        self.fleet = Authority(secrets.token_bytes(32)).fleet
        self.mine, self.other = (Identity(secrets.token_bytes(32)) for _ in range(2))
        self.life = secrets.token_hex(8)
        self.number = 0

    def next(self) -> bytes:
        self.number += 1
        item = Item(FRAME, self.frame())
        heard, now_ms = Heard(), time.time_ns() // 1_000_000
        mine = Heard(self.life, self.number)
        raw = write_parcel(self.mine, self.fleet, self.other.machine, mine, heard, now_ms, [item])
        return sealed.seal(raw, bytes.fromhex(self.other.keys["age"]))

    def frame(self) -> bytes:
        return os.urandom(FRAME_BYTES)

    def visitor(self, home: Path = Path()) -> Visitor:
        nobody: Any = None
        variables = {cloud.KEYS: ENV}.__getitem__
        return Visitor(
            self.mine.machine,
            home,
            nobody,
            variables=variables,
            wall_ms=lambda: clock.read().wall_ms,
        )

    def left_at(self, post: Post) -> Callable[[], Awaitable[None]]:
        return lambda: post.put(self.next(), to=self.other.machine)


@contextlib.asynccontextmanager
async def _drop(folder: Path, parcels: Parcels) -> AsyncIterator[Turns]:
    place, beside = folder / "place", folder / "beside"
    place.mkdir()
    beside.mkdir()
    post = drop.open_channel(drop.Options(place=str(place)), parcels.visitor())

    def write(raw: bytes) -> None:
        path = beside / hashlib.sha256(raw).hexdigest()
        with path.with_suffix(".tmp").open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".tmp").rename(path)
        there = os.open(beside, os.O_RDONLY)
        os.fsync(there)
        os.close(there)

    yield Turns(
        "fsync, rename, fsync", parcels.left_at(post), lambda b: asyncio.to_thread(write, b)
    )
    await post.close()


@contextlib.asynccontextmanager
async def _nats(folder: Path, parcels: Parcels) -> AsyncIterator[Turns]:
    import nats as client  # noqa: PLC0415 - of an extra

    from muster.channel import nats  # noqa: PLC0415 - of an extra

    with NatsServer(folder / "nats") as server:
        post = nats.open_channel(nats.Options(place=server.url), parcels.visitor())
        plain = await client.connect(server.url)
        js = plain.jetstream()
        await js.add_stream(name="raw", subjects=["raw"])
        yield Turns("publish-ack", parcels.left_at(post), lambda b: js.publish("raw", b))
        await plain.close()
        await post.close()


@contextlib.asynccontextmanager
async def _git(folder: Path, parcels: Parcels) -> AsyncIterator[Turns]:
    place, work = folder / "place.git", folder / "work"
    _run("git", "init", "--quiet", "--bare", str(place))
    _run("git", "clone", "--quiet", str(place), str(work))
    options = git.Options(place=str(place))
    post = git.open_channel(options, parcels.visitor(folder / "home"))

    async def push(raw: bytes) -> None:
        (work / "file").write_bytes(raw)
        await asyncio.to_thread(_run, "git", "add", "file", of=work)
        await asyncio.to_thread(_run, "git", *_AUTHOR, "commit", "--quiet", "-m", "x", of=work)
        await asyncio.to_thread(_run, "git", "push", "--quiet", "origin", "HEAD:raw", of=work)

    # A push waits for its turn: what is idle has it.
    yield Turns("git push", parcels.left_at(post), push, fewer=10, rest_s=git.Terms().gap_s)
    await post.close()


_AUTHOR: Final = ("-c", "user.name=x", "-c", "user.email=x@example.com")


def _run(*words: str, of: Path | None = None) -> None:
    subprocess.run(words, cwd=of, check=True, capture_output=True)


@contextlib.asynccontextmanager
async def _ssh(folder: Path, parcels: Parcels) -> AsyncIterator[Turns]:
    import asyncssh  # noqa: PLC0415 - of an extra

    rig, server = rigs.ssh_rig(folder), sshd.shared()
    async with rig.connected() as (near, far):
        key = asyncssh.generate_private_key("ssh-ed25519")
        with server.keys.open("ab") as keys:
            keys.write(key.export_public_key())
        user, _, _ = server.account.partition("@")
        plain = await asyncssh.connect(
            "127.0.0.1", server.port, username=user, client_keys=[key], known_hosts=None,
            config=None, agent_path=None,
        )  # fmt: skip

        async def there_and_back() -> None:
            await near.send(encode(Type.SEGMENT, 0, parcels.frame()))
            await far.send(await far.receive())
            await near.receive()

        yield Turns(
            "asyncssh exec",
            there_and_back,
            lambda b: plain.run("cat", input=b"x" * len(b), encoding=None),
        )
        plain.close()
        await plain.wait_closed()


@contextlib.asynccontextmanager
async def _cloud(folder: Path, parcels: Parcels) -> AsyncIterator[Turns]:
    with Store(folder) as store:
        host = f"127.0.0.1:{store.port}"
        options = cloud.Options(place=f"http://{host}/{BUCKET}/fleet")
        post = cloud.open_channel(options, parcels.visitor(folder))
        plain = http.client.HTTPConnection(host)

        def put(raw: bytes) -> None:
            path = f"/{BUCKET}/raw/{hashlib.sha256(raw).hexdigest()}"
            headers = signed(KEY, SECRET, "PUT", host, path, raw, time.time())
            plain.request("PUT", path, raw, headers)
            answer = plain.getresponse()
            answer.read()
            assert answer.status == HTTPStatus.OK, answer.status

        yield Turns("S3 put", parcels.left_at(post), lambda b: asyncio.to_thread(put, b))
        plain.close()
        await post.close()


CHANNELS: Final[dict[str, Callable[[Path, Parcels], AbstractAsyncContextManager[Turns]]]] = {
    "drop": _drop,
    "nats": _nats,
    "cloud": _cloud,
    "git": _git,
    "ssh": _ssh,
}


async def run(*, short: bool) -> list[Figure]:
    found = []
    for name, opened in CHANNELS.items():
        parcels, ours, raw = Parcels(), [], []
        with tempfile.TemporaryDirectory() as folder:
            async with opened(Path(folder), parcels) as turns:
                size = len(parcels.next())
                for _ in range((SHORT if short else TIMES) // turns.fewer):
                    await asyncio.sleep(turns.rest_s)
                    ours.append(await _timed(turns.ours()))
                    raw.append(await _timed(turns.raw(os.urandom(size))))
        line = f"ours {p50(ours):.2f} ms, {turns.raw_name} {p50(raw):.2f} ms, n = {len(raw)}"
        figure = f"channel {name}, idle p50 / {turns.raw_name}"
        found.append(Figure(figure, p50(ours) / p50(raw), turns.promise, line))
    return found


async def _timed(work: Awaitable[object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000
