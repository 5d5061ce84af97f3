"""What of the catalogue is here: how it is driven, which version, and whether it has a login.

Rule 1: whatever is asked answers in time or counts as silent, and nothing of it is left running.
It is asked in no folder of anybody's work: programs run what they find configured where they are.
Rule 2: a program is asked again when its file changes, and after a while, also one that was silent:
starting six of them each minute, only to hear the same, costs a small machine a core. Whoever asks
meanwhile waits for the same answer, and few are asked at once: one that says nothing makes room
for the next after a while. A person who waits for all of them gives one bound for the whole look.
Rule 3: the secret itself is looked at by nobody: a login is a file that is there, a variable that
is set, or the exit code of the program's own question.
Rule 4: who was refused by its model is not logged in, whatever its files say, until they change, it
succeeds, the program says something new of its login, or an hour has passed: a keychain shows
nobody that it has changed.
Rule 5: a program is asked for its login only where it is known to understand: an older one takes
the question for a prompt, and asks its model. A no keeps work away, so it is asked again at each
look; what its settings say of an account elsewhere makes it an open question, and so does a version
that is older than the one whose files we know.
"""

import asyncio
import contextlib
import os
import re
import sys
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from muster import child_process
from muster.agent import process_tree
from muster.agent.base import environment
from muster.agent.catalogue import (
    AgentEntry,
    Start,
    credentials_of,
    is_logged_in,
    may_be_elsewhere,
    start_of,
    which,
)
from muster.errors import NotFound
from muster.limits import FACTS_REFRESH_MS
from muster.task.route import NOOP

# A cold Node program on a busy small machine needs seconds to say its version.
PROBE_S_MAX: Final = 20.0
PROBE_BYTES_MAX: Final = 64 * 1024
# What a program wrote before it ended is there by then; a child of it may hold the pipe for ever.
REST_S_MAX: Final = 1.0
# Each is a cold start of Node, and a small machine has two cores.
_AT_ONCE: Final = 3
# By then a cold start is over, and what goes on waits for something: it takes no processor.
_ROOM_S_MAX: Final = 5.0
# Chosen arbitrarily: one attempt in vain in an hour is cheap, an agent left out for good is not.
REFUSED_S_MAX: Final = 3600.0
VERSION: Final = re.compile(r"\d+(?:\.\d+)+(?:[-+][\w.]+)?")
# Less than the time between two looks of a daemon.
_NO_S_MAX: Final = 50.0
# Programs answer 0 for yes and 1 for no; another code is a mistake, and no answer.
_LOGGED_IN: Final[Mapping[int | None, bool]] = {0: True, 1: False}


class Found(NamedTuple):
    """An installed agent: its program, its version ("" when it would not say), its driver."""

    path: str
    version: str
    driver: str = ""


class _Answer(NamedTuple):
    code: int | None
    said: str


@dataclass(slots=True)
class _Refusal:
    """What stood for the login of an agent when its model refused it, when (a time of the loop),
    and what the program itself said of its login after that.
    """

    files: object
    at_s: float
    said: _Answer | None = None


class Discovery:
    """The agents of one machine. `headless` names those that its owner wants driven without ACP.

    `until_s`, a time of the loop, bounds all that is asked together.
    """

    def __init__(
        self,
        agents: Mapping[str, AgentEntry],
        headless: Collection[str] = frozenset(),
        until_s: float = float("inf"),
    ) -> None:
        self.agents = agents
        self._until_s = until_s
        # Those that `found` asked for their version the last time, and that did not answer.
        self.silent: frozenset[str] = frozenset()
        self._headless = headless
        # What programs answered, by what was asked of which file; and when.
        self._answers: dict[tuple[object, ...], tuple[float, _Answer]] = {}
        self._asking: dict[tuple[object, ...], asyncio.Task[_Answer]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._refused: dict[str, _Refusal] = {}

    async def start_of(self, name: str, path: str) -> Start:
        """How the agent is started under this PATH. Raises: NotFound as `catalogue.start_of`."""
        entry = self.agents[name]
        node = await self._node_major(path) if entry.node_major_min else None
        return start_of(name, entry, path, headless=name in self._headless, node_major=node)

    async def found(self, env: Mapping[str, str]) -> dict[str, Found]:
        """What is here under this environment's PATH; the built-in agents always are."""
        path = env.get("PATH", os.defpath)
        here: dict[str, Start] = {}
        for name in self.agents:
            # A program that is not on this machine is no agent of it.
            with contextlib.suppress(NotFound):
                here[name] = await self.start_of(name, path)
        versions = await asyncio.gather(*(self._version(self.agents[n], env) for n in here))
        found = {NOOP: Found("", "")}
        said = list(zip(here.items(), versions, strict=True))
        self.silent = frozenset(name for (name, _), version in said if version is None)
        for (name, start), version in said:
            program = self.agents[name].program
            at = which(program, path) if program else ""
            driver = "" if self.agents[name].is_plain else start.driver
            found[name] = Found(at or "", version or "", driver)
        return found

    async def logins(
        self, names: Collection[str], env: Mapping[str, str], *, anew: bool = False
    ) -> dict[str, bool]:
        """Which of these agents have a login under this environment; who cannot tell is left out.

        `anew` asks programs that were asked a moment ago.
        """
        known = [name for name in names if name in self.agents]
        states = await asyncio.gather(*(self._login(name, env, anew=anew) for name in known))
        return {n: state for n, state in zip(known, states, strict=True) if state is not None}

    def refused(self, name: str, env: Mapping[str, str]) -> None:
        """The model took the agent for nobody it knows."""
        self._refused[name] = _Refusal(credentials_of(self.agents[name], env), _now_s())

    def succeeded(self, name: str) -> bool:
        """The agent did its work: it is logged in, as far as it can be. Whether that is news."""
        return self._refused.pop(name, None) is not None

    async def _login(self, name: str, env: Mapping[str, str], *, anew: bool) -> bool | None:
        entry = self.agents[name]
        if name in self._refused:
            if await self._is_refused(entry, env, self._refused[name], anew=anew):
                return False
            del self._refused[name]
        state = is_logged_in(entry, env, sys.platform)
        if state is True:
            return state
        answer = await self._says(entry, env, anew=anew)
        if answer.code not in _LOGGED_IN and state is False:
            # Where an older one keeps its account, or whether it needs one, was never looked at.
            version = await self._version(entry, env)
            is_older = version and _numbers(version) < _numbers(entry.tested)
            return None if is_older else False
        said = _LOGGED_IN.get(answer.code, state)
        return None if said is False and may_be_elsewhere(entry, env) else said

    async def _is_refused(
        self, entry: AgentEntry, env: Mapping[str, str], refusal: _Refusal, *, anew: bool
    ) -> bool:
        """Whether nothing has shown since that somebody logged in."""
        if refusal.files != credentials_of(entry, env):
            return False
        if _now_s() - refusal.at_s >= REFUSED_S_MAX:
            return False
        answer = await self._says(entry, env, anew=anew, refused=True)
        if refusal.said is None:
            refusal.said = answer
        return answer == refusal.said or answer.code != 0

    async def _says(
        self, entry: AgentEntry, env: Mapping[str, str], *, anew: bool, refused: bool = False
    ) -> _Answer:
        """What the program itself says of its login; no code where it cannot be asked."""
        if not entry.login_probe:
            return _Answer(None, "")
        if _numbers(await self._version(entry, env) or "") < _numbers(entry.login_probe_since):
            return _Answer(None, "")
        most = dict.fromkeys((0, 1) if refused else (1,), _NO_S_MAX)
        return await self._ask(entry.login_probe, env, anew=anew, reads=entry.variables, most=most)

    async def _version(self, entry: AgentEntry, env: Mapping[str, str]) -> str | None:
        """None of one that does not answer, "" of one that answers something else."""
        if entry.is_plain:
            return ""
        answer = await self._ask(entry.version_probe, env)
        if match := VERSION.search(answer.said):
            return match[0]
        return None if answer.code is None else ""

    async def _node_major(self, path: str) -> int | None:
        said = (await self._ask(("node", "--version"), {**os.environ, "PATH": path})).said
        match = re.match(r"v(\d+)\.", said.strip())
        return int(match[1]) if match else None

    async def _ask(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        anew: bool = False,
        reads: Collection[str] = (),
        most: Mapping[int, float] = {},
    ) -> _Answer:
        """What a program answers, asked again when its file changed or the answer is old.

        `most` says of exit codes for how many seconds they count at most.
        """
        program = which(argv[0], env.get("PATH", os.defpath))
        if program is None:
            return _Answer(None, "")
        status = os.stat(program)
        key = (program, status.st_mtime_ns, status.st_size, *argv[1:])
        asked_s, answer = self._answers.get(key, (-float("inf"), _Answer(None, "")))
        counts_s = FACTS_REFRESH_MS / 1000
        if answer.code is not None:
            counts_s = most.get(answer.code, counts_s)
        if not anew and _now_s() - asked_s < counts_s:
            return answer
        if key not in self._asking:
            given = {name: env[name] for name in reads if name in env}
            asking = self._answer(key, [program, *argv[1:]], environment(env, given))
            self._asking[key] = asyncio.create_task(asking)
        # Whoever gives up waiting does not take the answer from the others.
        return await asyncio.shield(self._asking[key])

    async def _answer(
        self, key: tuple[object, ...], argv: Sequence[str], env: dict[str, str]
    ) -> _Answer:
        try:
            async with self._room:
                asking = asyncio.create_task(self._bounded(argv, env))
                await asyncio.wait([asking], timeout=_ROOM_S_MAX)
            answer = await asking
            self._answers[key] = _now_s(), answer
        finally:
            del self._asking[key]
        return answer

    async def _bounded(self, argv: Sequence[str], env: dict[str, str]) -> _Answer:
        left_s = min(PROBE_S_MAX, self._until_s - _now_s())
        return await _run(argv, env, left_s) if left_s > 0 else _Answer(None, "")


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"[0-9]{1,9}", version)[:3])


async def _run(argv: Sequence[str], env: dict[str, str], within_s: float) -> _Answer:
    marker = uuid.uuid4().hex
    try:
        probe = await child_process.start(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**env, process_tree.MARKER: marker},
            cwd="/",
        )
    except OSError:
        return _Answer(None, "")
    assert probe.stdout is not None
    said = bytearray()
    reading = asyncio.create_task(_read(probe.stdout, said))
    code = None
    try:
        # It says nothing in time: its code stays unknown, which is what is answered.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                code = await probe.wait()
        await asyncio.wait([reading], timeout=REST_S_MAX)
    finally:
        reading.cancel()
        await probe.end()
    # Also what went into a session of its own.
    await asyncio.to_thread(process_tree.sweep, marker)
    return _Answer(code, said.decode("utf-8", "replace"))


async def _read(output: asyncio.StreamReader, said: bytearray) -> None:
    """All that is said, so that nobody waits for a reader; only its beginning is kept."""
    while piece := await output.read(PROBE_BYTES_MAX):
        said += piece[: PROBE_BYTES_MAX - len(said)]
