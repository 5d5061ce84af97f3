"""What surrounds an attempt: its sandbox, and what of this machine serves it in there.

Rule 1: how it is enclosed is decided before its agent begins (task/enclosure.py); where that cannot
be done here it does not begin here.
Rule 2: inside there is one way to each thing: to the daemon a socket of the attempt's own, on which
its capability alone counts (call/authorize.py, rule 4); to the network a proxy that knows what is
allowed; to the agent's model a gateway that has the key, which is not inside.
Rule 3: what surrounds an attempt stands on the machine's own word: no variable of a spec says where
a program, a certificate, an account or a model is, and none of those that say so reaches it.
Rule 4: a check speaks for nobody and to no model: it has the network that its phase names.
Rule 5: what serves it ends with it; what was reached, asked of a model and refused is in the
journal by then.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from muster.agent import visible
from muster.agent.base import KEPT_VARIABLES, AgentEvent, AttemptOrder, OnEvent
from muster.agent.catalogue import account_files, moving_variables, which
from muster.agent.egress.decision import Decision as Reached
from muster.agent.egress.proxy import Proxy
from muster.agent.egress.rules import Rules
from muster.agent.egress.upstream import Upstreams
from muster.agent.gateway.call import Call
from muster.agent.gateway.meter import Limits
from muster.agent.gateways import Gateways, Plan, gateways_for
from muster.agent.sandbox.profile import HOME
from muster.agent.sandbox.protected import PROTECTED, held
from muster.channel.ipc_client import ENCLOSED
from muster.channel.unproven import is_spare
from muster.errors import Broken, unable
from muster.git import cache
from muster.limits import MODEL_STALL_S
from muster.node.attempts import inputs
from muster.node.attempts.agent_home import write_into
from muster.node.attempts.served import Listeners, Served
from muster.node.attempts.spending import Spending
from muster.node.attempts.watch import Watch
from muster.node.attempts.workplace import Workplace
from muster.node.counter import DECLARED, labelled
from muster.node.host import environment as environ
from muster.node.host.sandbox_config import PROGRAM, uid_of
from muster.node.runtime import Runtime
from muster.task import enclosure
from muster.task.host_rule import HostRule, host_rule
from muster.task.instruction import StartAttempt
from muster.task.openings import openings_of
from muster.task.problem import shown

DECLARED[__name__] = {
    "egress-refused": "An enclosed attempt wanted to reach what it may not.",
    "gateway-<what>": "A call of an agent to its model ended so at its gateway.",
}

# Where it finds this machine, as its own home of Muster.
_MUSTER: Final = "/run/muster"
_SOCKET: Final = f"{_MUSTER}/run/sock"
_PROXY_PORT: Final = 3128
_PROXIES: Final = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_NO_PROXY: Final = dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1")
# Those of the machine itself are for the proxy outside.
_OF_MACHINE: Final = frozenset({*_PROXIES, *_NO_PROXY, "all_proxy", "ALL_PROXY"})
_NO_PLAN: Final = Plan((), {}, frozenset(), {}, ())
# A file that all may read, in a folder that all may look into.
_READ, _LOOK = 0o444, 0o555


class AttemptSandbox:
    """See the top of this file; one for each attempt."""

    def __init__(
        self,
        daemon: Runtime,
        start: StartAttempt,
        workplace: Workplace,
        watch: Watch,
        happened: OnEvent,
    ) -> None:
        self._watch = watch
        self._daemon, self._start, self._place = daemon, start, workplace
        self._happened = happened
        self._config = daemon.machine.config.sandbox
        self._decision = enclosure.Decision()
        self._plan = _NO_PLAN
        self._machine: dict[str, str] = {}
        self.gateways: Gateways | None = None
        """While they serve."""
        self.spending = Spending(start.limits, self._tell)

    async def decide(self, order: AttemptOrder, machine: Mapping[str, str]) -> None:
        """Find out how its agent is enclosed; `machine` is its environment without its spec's.

        Raises: Broken where that is not to be done here.
        """
        self._machine = dict(machine)
        entry = self._daemon.effects.agents.get(order.agent)
        if entry is not None:
            self._plan = gateways_for(entry, machine)
        decision = await self._judged()
        self.spending.check(str(self._start.open.template.get("model", "")), self._day())
        self.spending.metered = decision.enclosed and bool(self._plan.gateways)
        self._decision, profile = decision, decision.profile_hash()
        self._tell("agent.sandbox", enclosed=decision.enclosed, why=decision.why, profile=profile)

    async def _judged(self) -> enclosure.Decision:
        """What is so now: links may lead elsewhere since it was decided. Raises: Broken."""
        daemon, start = self._daemon, self._start
        now_ms = daemon.core.now.boot_ms
        looked = partial(daemon.effects.enclosing.obstacle, self._config, self._path, now_ms)
        obstacle = await asyncio.to_thread(looked)
        here = enclosure.Here(
            cannot=f"{obstacle.cause}; {obstacle.mend}" if obstacle is not None else "",
            home=self._person,
            never=daemon.home.own_folders,
            protected=tuple(PROTECTED),
            real=os.path.realpath,
        )
        hosts = tuple(map(host_rule, self._plan.hosts))
        doer = enclosure.Doer(start.assign.agent, hosts, bool(start.foreign))
        decision = enclosure.decide(start.open.template, doer, self._config.terms(), here)
        if decision.refusal:
            raise Broken(decision.refusal)
        return decision

    @asynccontextmanager
    async def around(
        self, order: AttemptOrder, *, check: bool = False
    ) -> AsyncIterator[tuple[AttemptOrder, Served]]:
        """The order with its sandbox, and what serves that once its listeners are there.

        Raises: Broken where the sandbox cannot be prepared.
        """
        served = Served(self._daemon)
        if not self._decision.enclosed:
            yield order, served
            return
        # Of its own work, and of others', links may lead elsewhere by now.
        self._decision = await self._judged()
        try:
            yield await self._enclosed(order, served, check=check), served
        finally:
            self.gateways = None
            await served.close()

    def forbidden(self, changed: Iterable[str]) -> str:
        """Why a result that changes these paths is none; "" where it is one."""
        if not self._decision.enclosed:
            return ""
        path, frees = held(changed, self._decision.free)
        return path and (
            f"the result changes {shown(path)}, which programs of people obey and no sandbox lets "
            f"be written; where that is meant, free it in the phase: `paths: {{write: [{frees}]}}`"
        )

    # --- what is inside ------------------------------------------------------------------------

    async def _enclosed(self, order: AttemptOrder, served: Served, *, check: bool) -> AttemptOrder:
        decision, user, path = self._decision, uid_of(self._config.user), self._path
        plan = _NO_PLAN if check else self._plan
        network = openings_of(self._start.open.template).network if check else decision.network
        placed, written = dict[str, str](), dict(plan.files)
        try:
            home = await self._place.home(check=check)
            if not check:
                placed[_SOCKET] = await served.listen(self._start.assign.task, user)
                accounts = {} if plan.gateways else self._accounts()
                placed |= {f"{HOME}/{name}": file for name, file in accounts.items()}
                # What is placed lies over a file of ours: a link there would lead out.
                written |= dict.fromkeys(accounts, "")
            for name, text in written.items():
                await asyncio.to_thread(write_into, home, name, text)
            readable = await asyncio.to_thread(self._readable, user)
        except OSError as error:
            raise unable(f"the sandbox of an attempt cannot be prepared: {error}", error) from error
        env = plan.inside(self._inside(order, check=check))
        if plan.gateways:
            self.gateways = self._gateways(plan)
            served.add([each.port for each in plan.gateways], self.gateways)
        if network:
            served.add([_PROXY_PORT], self._proxy(network))
            env |= dict.fromkeys(_PROXIES, f"http://127.0.0.1:{_PROXY_PORT}") | _NO_PROXY
            env["NODE_USE_ENV_PROXY"] = "1"
        programs = [] if check else await self._programs(order, path)
        own = self._daemon.home.own_folders
        sandbox = {
            "program": self._config.program or which(PROGRAM, path) or "",
            "user": user,
            "home": str(home),
            "readable": [*readable, *visible.readable(programs, path, self._person, own)],
            "writable": list(decision.write),
            "placed": placed,
            "free": list(decision.free),
            "ports": served.ports,
            "memory_bytes": decision.memory_bytes,
            "processes": decision.processes,
            "notes": str(self._place.tree.notes) if self._place.tree else "",
        }
        return replace(order, env=env, sandbox=sandbox)

    def _inside(self, order: AttemptOrder, *, check: bool) -> dict[str, str]:
        """What of an order's environment is inside, as far as it is no gateway's matter."""
        entry = None if check else self._daemon.effects.agents.get(order.agent)
        # A model is the spec's to choose, and leads nowhere.
        own = {name for name in entry.variables if not name.endswith("_MODEL")} if entry else set()
        moving = moving_variables(entry) if entry else frozenset()
        machine = {name: text for name, text in self._machine.items() if name not in moving}
        ours = own | moving | _OF_MACHINE | {*environ.NETWORK, *KEPT_VARIABLES}
        env = {name: text for name, text in order.env.items() if name not in ours}
        env |= {name: text for name, text in machine.items() if name in ours - _OF_MACHINE}
        env |= visible.variables(self._path)
        return env | {"MUSTER_HOME": _MUSTER, "MUSTER_SOCK": _SOCKET, ENCLOSED: "1"}

    @property
    def _path(self) -> str:
        return self._machine.get("PATH", os.defpath)

    @property
    def _person(self) -> str:
        """The home of whoever the daemon runs as."""
        return self._daemon.effects.environ.get("HOME", "") or str(Path.home())

    async def _programs(self, order: AttemptOrder, path: str) -> list[str]:
        """The files that are run, and those that variables name for that."""
        start = await self._daemon.effects.discovery.start_of(order.agent, path)
        return [which(start.argv[0], path) or "" if start.argv else "", *start.env.values()]

    def _readable(self, user: int) -> list[str]:
        """What of this machine is shown beside programs. Blocks. Raises: OSError."""
        found = [*self._decision.read, *visible.files_named(self._machine, environ.NETWORK)]
        own = [inputs.folder_of(self._daemon, self._start), *self._borrowed()]
        for folder in (each for each in own if each.is_dir()):
            found.append(str(folder))
            if user:
                # Ours are for root alone, and lie in a folder that only root enters.
                _let_read(folder)
        return found

    def _borrowed(self) -> Iterator[Path]:
        """Where the objects lie that the work folder's repository borrows."""
        if (tree := self._place.tree) is not None:
            yield tree.cache / "objects"
            yield tree.cache / cache.BEFORE

    def _accounts(self) -> dict[str, str]:
        """The files of an account that the agent has without a key, by where each is below HOME."""
        entry = self._daemon.effects.agents.get(self._start.assign.agent)
        found = {} if entry is None else account_files(entry, self._machine)
        return {name: str(file) for name, file in found.items() if file.is_file()}

    # --- what serves it ------------------------------------------------------------------------

    def _proxy(self, hosts: Collection[HostRule]) -> "_Egress":
        local = self._decision.local
        rules = Rules([host for host in hosts if host not in local], local)
        upstreams = Upstreams(self._daemon.effects.environ)
        return _Egress(Proxy(rules, self._reached, upstreams, is_spare=is_spare))

    def _reached(self, what: Reached) -> None:
        if not what.allowed:
            self._daemon.core.counters["egress-refused"] += what.times
        self._tell(
            "agent.network", host=what.host, port=what.port, allowed=what.allowed, why=what.why,
            sent=what.sent_bytes, received=what.received_bytes, ms=what.ms, times=what.times,
        )  # fmt: skip

    def _gateways(self, plan: Plan) -> Gateways:
        most = self._start.limits
        limits = Limits(tokens=most.tokens, usd_millionths=most.usd_millionths)
        made = Gateways(
            plan, limits, self._day(), self._called, env=self._daemon.effects.environ,
            count=self._count, is_spare=is_spare, ended=self._watch.called,
            stall_s=self._watch.thresholds.stall or MODEL_STALL_S,
        )  # fmt: skip
        self.spending.meter = made.meter
        return made

    def _day(self) -> str:
        """Whose prices hold."""
        wall_s = self._daemon.core.now.wall_ms / 1000
        return datetime.fromtimestamp(wall_s, UTC).date().isoformat()

    def _called(self, call: Call) -> None:
        self._tell("agent.call", **msgspec.to_builtins(call))
        self.spending.called(call)

    def _count(self, name: str) -> None:
        self._daemon.core.counters[labelled("gateway", name.removeprefix("gateway-"))] += 1

    def _tell(self, kind: str, **fields: Any) -> None:
        self._happened(AgentEvent(kind, fields))


class _Egress:
    """The proxy, as what serves the one port that it has."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.close = proxy.close

    async def serve(self, listeners: Listeners) -> None:
        await self._proxy.serve(listeners[_PROXY_PORT])


def _let_read(folder: Path) -> None:
    """Let others read what lies in a folder of ours. Raises: OSError."""
    for path, _, names in os.walk(folder):
        _add_mode(path, _LOOK)
        for name in names:
            _add_mode(os.path.join(path, name), _READ)


def _add_mode(path: str, more: int) -> None:
    # What git replaces meanwhile is made anew, and read by nobody yet.
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISLNK(mode) and mode & more != more:
            os.chmod(path, stat.S_IMODE(mode) | more)
    except FileNotFoundError:
        # What git replaces meanwhile is made anew, and read by nobody yet.
        return
