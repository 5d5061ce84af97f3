"""A fleet of real daemons on this machine, linked by mutual TLS over loopback, and a caller.

The first machine is the hub; the others dial it. A caller is a program of the same user on the
hub's socket, as the command is, that keeps many calls open at once. It holds the operator's key.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, cast

from tests.ports import free_port

from bench.machine import send_capability
from muster.channel import FIRST, http
from muster.channel.frame import LENGTH_BYTES, Type, decode, encode, prefixed, read_length
from muster.fleet import certificate
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.record import open_record, sign_binding, sign_operator, sign_record
from muster.fleet.statement import sign_statement
from muster.log import canon
from muster.node.host.config import Config, config_text
from muster.node.host.home import Home

# A fleet, and each machine of it, has so long to come together.
READY_S, READY_EACH_S = 30, 4
ORDER_MS = 300_000


class Fleet:
    """`machines` daemons named m0 (the hub), m1, …; all but the hub have the label `worker`."""

    def __init__(self, machines: int, *, env: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mb-"))
        self.machines = machines
        self.daemons: list[subprocess.Popen[bytes]] = []
        secret = secrets.token_bytes(32)
        self.capability = send_capability(secret)[0]
        self._env = {
            **os.environ,
            "MUSTER_STATE": str(self.folder / "state"),
            "BENCH_SECRET": secret.hex(),
            **(env or {}),
        }
        self._authority = Authority(secrets.token_bytes(32))
        self.operator_seed = secrets.token_bytes(32)
        self.operator = Operator(self.operator_seed)
        self.fleet = self._authority.fleet
        self.ids: list[str] = []
        self._make()

    def home(self, number: int) -> Home:
        return Home(self.folder / f"m{number}")

    def _make(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        seeds = [secrets.token_bytes(32) for _ in range(self.machines)]
        identities = [Identity(seed) for seed in seeds]
        self.ids = [each.machine for each in identities]
        ports = [free_port() for _ in seeds]
        operators = [sign_operator(self._authority, self.operator.key, "alice", now_ms).decode()]
        records = [
            sign_record(
                self._authority,
                sign_binding(each, self.fleet, f"m{number}"),
                roles=["workstation"] if number else ["hub", "workstation"],
                serial=1,
                issued_ms=now_ms,
            )
            for number, each in enumerate(identities)
        ]
        for number, seed in enumerate(seeds):
            home = self.home(number)
            home.create()
            home.put_seed("seed", seed)
            certificates = certificate.issue(
                self._authority, open_record(records[number], self.fleet), now_ms
            )
            address = f"127.0.0.1:{ports[number]}"
            labels = ("worker",) if number else ()
            options = http.Options(address)
            config = Config(name=f"m{number}", labels=labels, channel={FIRST: options})
            home.put("config.toml", config_text(config))
            # As where they joined: the hub recorded all, and the others know the hub.
            others = [r.decode() for r in (records[:1] if number else records[1:])]
            dial = {self.ids[0]: f"127.0.0.1:{ports[0]}"} if number else {}
            home.put_facts(
                {
                    "fleet": self.fleet,
                    "record": records[number].decode(),
                    "operators": operators,
                    "machines": others,
                    "ca": certificates.ca_pem.decode(),
                    "certificate": certificates.tls_pem.decode(),
                    "address": address,
                    "dial": dial,
                }
            )

    def __enter__(self) -> Self:
        try:
            for number in range(self.machines):
                log = (self.folder / f"m{number}.log").open("wb")
                daemon = subprocess.Popen(
                    [sys.executable, "-m", "bench.machine", str(self.home(number).path)],
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=self._env,
                )
                self.daemons.append(daemon)
            for number, daemon in enumerate(self.daemons):
                assert daemon.stdout is not None
                if daemon.stdout.readline().strip() != b"ready":
                    raise RuntimeError((self.folder / f"m{number}.log").read_text()[-2000:])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(15)
            daemon.kill()
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def caller(self) -> "Caller":
        """A caller on the hub, once every machine is there."""
        caller = await Caller.connect(self)
        give_up = time.monotonic() + READY_S + READY_EACH_S * self.machines
        while True:
            machines = await caller.call("machines", {})
            here = [m for m in machines if m["state"] != "away" and m["facts"]]
            if len(here) == self.machines and (await caller.call("status", {}))["settled"]:
                # What a start brings (facts, receipts, the first beats) is over after this.
                await asyncio.sleep(1.5)
                return caller
            if time.monotonic() > give_up:
                there = {m["name"] for m in here}
                missing = [m["name"] for m in machines if m["name"] not in there]
                raise RuntimeError(f"the fleet did not come together: {missing} are missing")
            await asyncio.sleep(0.1)

    def cpu_s(self, number: int) -> float:
        """Processor seconds that a daemon has used so far."""
        text = Path(f"/proc/{self.daemons[number].pid}/stat").read_text().rpartition(")")[2]
        user, system = text.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def statement(self, verb: str, object_: str, args: Mapping[str, Any]) -> str:
        """An operator's signed order to the hub."""
        now_ms = time.time_ns() // 1_000_000
        return sign_statement(
            self.operator.statement,
            fleet=self.fleet,
            verb=verb,
            object=object_,
            target=self.ids[0],
            args=dict(args),
            nonce=secrets.token_bytes(16),
            issued_ms=now_ms,
            until_ms=now_ms + ORDER_MS,
        ).decode()


class Failed(Exception):
    """A verb answered that it did not do it."""


class Caller(asyncio.Protocol):
    """One connection to a daemon's socket; any number of calls at once."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._number = 0
        self._waiting: dict[int, Callable[[bytes, bytes], None]] = {}
        self._parts: dict[int, bytes] = {}
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    @classmethod
    async def connect(cls, fleet: Fleet, number: int = 0) -> Self:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_unix_connection(lambda: cls(fleet), fleet.home(number).socket)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        waiting, self._waiting = self._waiting, {}
        for take in waiting.values():
            take(b".", b'{"ok":false,"error":"the daemon hung up"}')

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= LENGTH_BYTES:
            size, last = read_length(bytes(buffer[at : at + LENGTH_BYTES]))
            end = at + LENGTH_BYTES + size
            if len(buffer) < end or last:
                break
            frame = decode(bytes(buffer[at + LENGTH_BYTES : end]))
            at = end
            take = self._waiting.get(frame.channel)
            if take is not None:
                take(frame.payload[:1], frame.payload[1:])
        del buffer[:at]

    def prepare(self, verb: str, args: Mapping[str, Any], statement: str = "") -> bytes:
        """A call as bytes, so that signing and encoding can come before the clock."""
        value = {"args": dict(args), "verb": verb}
        if statement:
            value["statement"] = statement
        return canon.encode(value)

    def begin(self, payload: bytes) -> "asyncio.Future[Any]":
        self._number += 1
        number = self._number
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def take(mark: bytes, raw: bytes) -> None:
            if mark == b"*":
                return
            whole = self._parts.pop(number, b"") + raw
            if mark == b"+":
                self._parts[number] = whole
                return
            self._waiting.pop(number, None)
            answer = json.loads(whole)
            if done.done():
                return
            if answer["ok"]:
                done.set_result(answer["value"])
            else:
                done.set_exception(Failed(str(answer["error"])))

        self._waiting[number] = take
        self._transport.write(prefixed(encode(Type.CALL, number, payload)))
        return done

    async def call(self, verb: str, args: Mapping[str, Any], statement: str = "") -> Any:
        return await self.begin(self.prepare(verb, args, statement))

    def ordered(self, verb: str, object_: str, args: Mapping[str, Any]) -> bytes:
        """A call with an operator's statement, signed now and sent later."""
        return self.prepare(verb, args, self.fleet.statement(verb, object_, args))

    def asked(self, verb: str, args: Mapping[str, Any]) -> bytes:
        """A call as an agent on the hub makes it, with its capability."""
        value = {"args": dict(args), "capability": self.fleet.capability, "verb": verb}
        return canon.encode(value)

    async def order(self, verb: str, object_: str, args: Mapping[str, Any]) -> Any:
        return await self.begin(self.ordered(verb, object_, args))

    def close(self) -> None:
        self._transport.close()
