"""A fleet of real daemons on loopback, made without the command line, and a client for each.

    with Fleet(["hub", "studio", "laptop"]) as fleet:
        fleet.start()
        fleet["studio"].client().order("send", "hub", {"to": "hub", "text": ["hi"]})

The first machine is the hub and holds the authority; the operator's seed stays with the fleet
object, so that a test may sign for any machine. Every process of a fleet carries the fleet's
folder in its PATH, which is how `processes` finds the ones nobody ended.
"""

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from muster import errors
from muster.channel import FIRST, http
from muster.channel.frame import Type, decode, encode
from muster.channel.ipc_client import Client as Pipe
from muster.fleet import certificate
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.record import open_record, sign_binding, sign_operator, sign_record
from muster.fleet.statement import sign_statement
from muster.git import repository
from muster.node.host.config import Config, config_text
from muster.node.host.home import Home
from tests.git.repositories import commit, sh, wait
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
READY_S = 60.0
# The variable that names a file in which agents note that they began; specs name no local paths.
NOTES = "E2E_NOTES"
ORDER_MS = 300_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def until(true: Callable[[], Any], what: str | Callable[[], str], *, within_s: float = 30.0) -> Any:
    """Wait until `true()` holds; its value. The one place in these tests that polls."""
    end = time.perf_counter() + within_s
    while True:
        value = true()
        if value:
            return value
        if time.perf_counter() > end:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {within_s:.0f} s: {text}")
        time.sleep(0.05)


def canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


class Client:
    """A program that talks to one daemon through its socket."""

    def __init__(self, machine: "Machine", timeout_s: float = 20.0) -> None:
        self.machine = machine
        self._pipe = Pipe(machine.home.socket, timeout_s)
        self._number = 0

    def raw(self, payload: bytes) -> Any:
        """The last answer to the bytes of one call, as JSON."""
        self._number += 1
        self._pipe.send(encode(Type.CALL, self._number, payload))
        parts = b""
        while True:
            frame = decode(self._pipe.receive())
            if frame.channel != self._number:
                continue
            parts += frame.payload[1:]
            if frame.payload[:1] == b".":
                return json.loads(parts)
            if frame.payload[:1] == b"*":
                parts = b""

    def call(self, verb: str, args: Mapping[str, Any], **more: Any) -> Any:
        """What the verb yields. Raises: the error that the daemon answered with."""
        answer = self.raw(canonical({"args": dict(args), "verb": verb, **more}))
        if answer.get("ok"):
            return answer["value"]
        error = answer["error"]
        raise getattr(errors, error["kind"], errors.Refused)(error["text"])

    def order(self, verb: str, object: str, args: Mapping[str, Any], **more: Any) -> Any:
        """A verb with the operator's signature, for the machine that is called."""
        statement = self.machine.fleet.sign(verb, object, self.machine, args)
        return self.call(verb, args, statement=statement, **more)

    def close(self) -> None:
        self._pipe.__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Machine:
    """One machine: its home, and the process of its daemon while there is one."""

    def __init__(self, fleet: "Fleet", name: str, identity: Identity, port: int) -> None:
        self.fleet = fleet
        self.name = name
        self.identity = identity
        self.id = identity.machine
        self.port = port
        self.home = Home(fleet.root / name)
        self.process: subprocess.Popen[bytes] | None = None
        self.env: dict[str, str] = {}
        # What its daemon's command begins with: where it runs, if not here.
        self.into: Sequence[str] = ()
        # The checkout whose program it runs: ours, or that of another version.
        self.code = ROOT

    # --- life ----------------------------------------------------------------------------

    def begin(self) -> int:
        """Start the daemon and do not wait; the end of a pipe that says when it is ready."""
        reader, writer = os.pipe()
        with open(self.home.daemon_log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.into, sys.executable, "-m", "tests.e2e.machine", str(self.home.path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(writer,), cwd=self.code,
                env=self.fleet.environment(self) | {"MUSTER_READY_FD": str(writer)} | self.env,
            )  # fmt: skip
        os.close(writer)
        return reader

    def start(self, **env: str) -> "Machine":
        """Start the daemon and wait until it answers."""
        self.env.update(env)
        self.ready(self.begin())
        return self

    def ready(self, reader: int) -> None:
        try:
            found, _, _ = select.select([reader], [], [], READY_S)
            said = os.read(reader, 1) if found else b""
        finally:
            os.close(reader)
        assert said, f"{self.name} did not start:\n{self.log()[-3000:]}"

    def kill(self) -> None:
        """End it as a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """End it as a person would; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def wait(self, timeout_s: float = 40.0) -> int:
        if self.process is None:
            return 0
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        path = Path(self.home.daemon_log)
        return path.read_text(errors="replace") if path.exists() else ""

    # --- questions -----------------------------------------------------------------------

    def client(self, timeout_s: float = 20.0) -> Client:
        return Client(self, timeout_s)

    def ask(self, verb: str, args: Mapping[str, Any] | None = None) -> Any:
        """One question to a verb that needs no order."""
        with self.client() as client:
            return client.call(verb, args or {})

    def order(self, verb: str, object: str, args: Mapping[str, Any], **more: Any) -> Any:
        """One order, signed by the operator for this machine."""
        with self.client() as client:
            return client.order(verb, object, args, **more)

    def linked(self) -> set[str]:
        """The machines this one has a live link to."""
        return {m["name"] for m in self.ask("machines") if m["state"] == "up"}

    def edit_facts(self, **changed: Any) -> None:
        """Change `fleet.json`, as another start would find it."""
        self.home.put_facts(self.home.facts() | changed)


class Fleet:
    """See the top of this file. `dials` says who dials whom; by default all dial the hub."""

    def __init__(
        self,
        names: Sequence[str] = ("hub", "studio"),
        *,
        dials: Mapping[str, Sequence[str]] | None = None,
        deaf: Sequence[str] = (),
        issued_ms: int | None = None,
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="muster-e2e-"))
        # Machines of other users may have to look for their own files in it.
        self.root.chmod(0o755)
        (self.root / "bin").mkdir()
        self.notes = self.root / "notes"
        self.authority = Authority(secrets.token_bytes(32))
        self.operator_seed = secrets.token_bytes(32)
        self.operator = Operator(self.operator_seed)
        self.fleet = self.authority.fleet
        self.issued_ms = now_ms() if issued_ms is None else issued_ms
        self.machines: dict[str, Machine] = {}
        self.records: dict[str, bytes] = {}
        self._seeds = {name: secrets.token_bytes(32) for name in names}
        for name, seed in self._seeds.items():
            identity = Identity(seed)
            self.machines[name] = Machine(self, name, identity, free_port())
            roles: Any = ["hub", "workstation"] if name == names[0] else ["workstation"]
            binding = sign_binding(identity, self.fleet, name)
            self.records[name] = sign_record(
                self.authority, binding, roles=roles, serial=1, issued_ms=self.issued_ms
            )
        chosen = dials or {name: [names[0]] for name in names[1:]}
        for name in names:
            self._settle(name, chosen.get(name, ()), listens=name not in deaf)

    def _settle(self, name: str, dials: Sequence[str], *, listens: bool) -> None:
        machine, home = self.machines[name], self.machines[name].home
        home.create()
        home.put_seed("seed", self._seeds[name])
        if machine is self.hub:
            home.put_seed("authority.seed", self.authority._seed)
        address = self.place(name) if listens else ""
        options = http.Options(address)
        config = Config(name=name, labels=(f"on-{name}",), channel={FIRST: options})
        home.put("config.toml", config_text(config) + f'agent_env = ["{NOTES}"]\n'.encode())
        record = open_record(self.records[name], self.fleet)
        certificates = certificate.issue(self.authority, record, self.issued_ms)
        operator = sign_operator(self.authority, self.operator.key, "alice", self.issued_ms)
        others = [raw.decode() for other, raw in self.records.items() if other != name]
        reach = {self.machines[other].id: self.place(other) for other in dials}
        home.put_facts(
            {
                "fleet": self.fleet,
                "record": self.records[name].decode(),
                "operators": [operator.decode()],
                "machines": others,
                "ca": certificates.ca_pem.decode(),
                "certificate": certificates.tls_pem.decode(),
                "address": address,
                "dial": reach,
            }
        )

    # --- the whole -----------------------------------------------------------------------

    def place(self, name: str) -> str:
        """Where a machine listens."""
        return f"127.0.0.1:{self.machines[name].port}"

    @property
    def hub(self) -> Machine:
        return next(iter(self.machines.values()))

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def start(self) -> Self:
        """Start every machine; wait until each has its links to whom it dials."""
        readers = [(m, m.begin()) for m in self.machines.values()]
        for machine, reader in readers:
            machine.ready(reader)
        for machine in self.machines.values():
            wanted = len(machine.home.facts()["dial"])
            until(lambda m=machine, n=wanted: len(m.linked()) >= n, f"{machine.name} has its links")
        until(lambda: all(m["facts"] for m in self.hub.ask("machines")), "the hub knows everybody")
        return self

    def environment(self, machine: Machine) -> dict[str, str]:
        """The environment of a machine's processes; it carries our mark."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MUSTER_", "COV_"))}
        here = f"{self.root / 'bin'}{os.pathsep}{Path(sys.executable).parent}"
        env["PATH"] = here + os.pathsep + env.get("PATH", os.defpath)
        # Nobody logs in with it: the shell of whoever runs the tests has no say here.
        env["SHELL"] = "/bin/false"
        env["MUSTER_STATE"] = str(self.root / "state" / machine.name)
        env[NOTES] = str(self.notes)
        env["MUSTER_HOME"] = str(machine.home.path)
        if machine.code != ROOT:
            env["PYTHONPATH"] = f"{machine.code / 'src'}{os.pathsep}{machine.code}"
        return env

    def sign(
        self, verb: str, object: str, target: Machine, args: Any, *, life_ms: int = ORDER_MS
    ) -> str:
        """An order of the operator."""
        issued = now_ms()
        return sign_statement(
            self.operator.statement, fleet=self.fleet, verb=verb, object=object, target=target.id,
            args=args, nonce=secrets.token_bytes(16), issued_ms=issued, until_ms=issued + life_ms,
        ).decode()  # fmt: skip

    def add_repository(self, name: str = "main") -> Path:
        """A repository on the hub, from a checkout with one commit; its bare folder."""
        source = self.root / "source"
        source.mkdir()
        sh(source, "init", "-q")
        commit(source, "first", readme__md="hello\n")
        return wait(repository.add(Path(self.hub.home.repos), name, str(source))).path

    def processes(self) -> dict[int, str]:
        """Every living process of this fleet, by its pid, with its command line."""
        mark, found = os.fsencode(self.root / "bin"), {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                state = (folder / "stat").read_bytes().rpartition(b")")[2].split()[0]
                if state in (b"Z", b"X") or mark not in (folder / "environ").read_bytes():
                    continue
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = line.decode(errors="replace").strip()
        return found

    def orphans(self) -> dict[int, str]:
        """Processes of this fleet that are neither a daemon nor below one."""
        daemons = {m.process.pid for m in self.machines.values() if m.process is not None}
        return {pid: line for pid, line in self.processes().items() if pid not in daemons}

    def close(self, *, keep: bool = False) -> None:
        """End everything; `keep` leaves the homes where they are."""
        for machine in self.machines.values():
            machine.kill()
        for pid in self.orphans():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not keep:
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            for machine in self.machines.values():
                print(f"--- {machine.name}\n{machine.log()[-2000:]}")
        self.close()
