"""The real Claude Code and Codex ask their model through a gateway that has the key.

No credentials and no network: behind the gateway stands the scripted model. Nothing is enclosed
here; what is proven is that the agents work so, that their key is nowhere in them, and that they
end when their budget does.
"""

import asyncio
import contextlib
import itertools
import json
import socket

import pytest
from msgspec.structs import replace

from muster.agent.catalogue import load
from muster.agent.gateway.key import Key
from muster.agent.gateway.meter import Limits
from muster.agent.gateways import PLACEHOLDER, Gateways, gateways_for
from tests.agent.world import marked, until
from tests.e2e import install_agents, vendor
from tests.e2e.stage import Stage, every
from tests.e2e.test_real_agents import model
from tests.promise import proves

__all__ = ["model"]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

REAL = "sk-real-e2e-b81f0c77d2"
# What the machine's owner has set: the variable of the key, and the one of the base URL.
OWN = {
    "claude": ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", ""),
    "codex": ("OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", ""),
    "qwen": ("OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1"),
    "copilot": ("COPILOT_PROVIDER_API_KEY", "COPILOT_PROVIDER_BASE_URL", "/v1"),
    "opencode": ("ANTHROPIC_API_KEY", "", ""),
}
# Codex gives a model that it knows other tools than the scripted one calls.
MODELS = {"codex": "scripted", "opencode": "anthropic/claude-sonnet-4-5"}
AGENTS = [name for name in every("claude", "codex") if name in OWN]
# What is only reserved, as engines of JavaScript do, is not read.
MAPPED_BYTES_MAX = 1 << 30
# What a command and the agent itself have in their environment.
LOOK = "cat /proc/self/environ /proc/$PPID/environ > seen.txt"


class Guarded:
    """A stage whose agent has no key: its gateways stand beside it."""

    def __init__(self, name, url, folder, *, headless):
        self.stage = Stage(name, url, folder, headless=headless)
        key, base, end = OWN[name]
        given = vendor.settled(name, url, self.stage.home)
        own = {n: v for n, v in self.stage.env.items() if n not in given}
        # Of the vendor's settings for a test, what is neither key nor address.
        no = ("KEY", "URL", "OPENCODE_CONFIG")
        kept = {n: v for n, v in given.items() if not any(each in n for each in no)}
        self.variables = {**own, **kept, key: REAL}
        self.entry = load()[name]
        if base:
            self.variables[base] = f"{url}{end}"
        else:
            # Its own address stands in the catalogue alone.
            access = self.entry.access
            ends = [replace(each, upstream=url) for each in access.endpoints]
            self.entry = replace(self.entry, access=replace(access, endpoints=tuple(ends)))
        self.told, self.counts = [], []
        self.headless = headless

    def shell(self, command):
        """Headless nobody is asked, so nobody is to be."""
        return {"tool": "shell", "command": command} if self.headless else self.stage.shell(command)

    @contextlib.asynccontextmanager
    async def gateways(self, limits):
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = [each.getsockname()[1] for each in sockets]
        plan = gateways_for(self.entry, self.variables, ports)
        self.stage.env = plan.inside(self.variables)
        for path, text in plan.files.items():
            vendor._write(self.stage.home / path, text)
        made = Gateways(
            plan, limits, "2026-11-28", self.told.append, env={}, count=self.counts.append
        )
        self.meter = made.meter
        try:
            await made.serve(dict(zip(ports, sockets, strict=True)))
            yield plan
        finally:
            await made.close()
            for each in sockets:
                each.close()

    def run(self, *steps, limits=None):
        async def go():
            async with self.gateways(limits or Limits()):
                model = MODELS.get(self.stage.name, "")
                attempt = await self.stage.start(self.stage.order(*steps, model=model))
                return await attempt.wait()

        return asyncio.run(go())

    def said(self):
        return json.dumps([[event.kind, event.fields] for event in self.stage.events], indent=1)


@pytest.fixture(
    params=list(itertools.product(AGENTS, (True, False))),
    ids=lambda p: f"{p[0]}-{'headless' if p[1] else 'acp'}",
)
def guarded(request, model, tmp_path):
    name, headless = request.param
    absent = install_agents.missing(install_agents.folder(), name)
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed: run tests/e2e/install_agents.py")
    made = Guarded(name, model[0], tmp_path, headless=headless)
    yield made
    assert marked(made.stage.mark) == {}, "something of the attempt still runs"


@proves("gateway.real-agents", "gateway.key-outside")
def test_a_real_agent_works_through_its_gateway_and_has_no_key(guarded):
    stage = guarded.stage
    target = stage.tree / "hello.txt"
    # These let no command name a path outside of the folder.
    look = "env > seen.txt" if stage.name in ("copilot", "opencode") else LOOK
    outcome = guarded.run(
        {"tool": "write", "path": str(target), "content": "hello\n"},
        guarded.shell(look),
        {"text": "The file is there."},
    )
    told = guarded.said() + repr(guarded.told)
    assert (outcome.status, outcome.summary) == ("ok", "The file is there."), (outcome, told)
    assert target.read_text() == "hello\n"
    seen = (stage.tree / "seen.txt").read_text()
    assert "PATH=" in seen
    files = [f for top in (stage.tree, stage.home) for f in top.rglob("*") if f.is_file()]
    kept = b"".join(file.read_bytes() for file in files)
    for where in (seen, kept.decode("latin-1"), guarded.said(), repr(guarded.told), repr(outcome)):
        assert REAL not in where
    answered = [call for call in guarded.told if call.ending == "answered" and call.usage.tokens]
    assert len(answered) >= 3, told
    assert all(call.usage.input == 10 and not call.estimated for call in answered), told
    assert guarded.meter.used.tokens == 15 * len(answered)


@proves("gateway.real-agents", "gateway.budget")
def test_a_real_agent_ends_with_its_budget_and_says_so(guarded):
    """Two calls of fifteen tokens, and the third does not begin."""
    stage = guarded.stage
    steps = [guarded.shell(f"touch step-{n}") for n in range(5)]
    outcome = guarded.run(*steps, {"text": "done"}, limits=Limits(tokens=25))
    told = guarded.said() + repr(guarded.told)
    assert outcome.status != "ok" or "budget" in outcome.tail, (outcome, told)
    assert "the budget of this task is spent" in outcome.summary + outcome.tail, (outcome, told)
    assert not outcome.logged_out, outcome
    assert guarded.meter.used.tokens <= 25 + 15, told
    assert not (stage.tree / "step-4").exists()
    assert guarded.meter.running == 0


@proves("gateway.real-agents", "gateway.key-outside")
def test_the_key_is_in_the_memory_of_no_process_of_a_real_agent(guarded, tmp_path):
    """Searched while its model thinks; what stands in the key's place is found so."""
    waits = tmp_path / "model-thinks"

    async def go():
        async with guarded.gateways(Limits()):
            name = guarded.stage.name
            order = guarded.stage.order({"hold": str(waits)}, model=MODELS.get(name, ""))
            attempt = await guarded.stage.start(order)
            begun = await until(waits.exists, 60)
            pids = list(marked(guarded.stage.mark))
            found = await asyncio.to_thread(lambda: [remembered(pid) for pid in pids])
            attempt.cancel("seen enough")
            await attempt.wait()
            return begun, found

    begun, found = asyncio.run(go())
    assert begun, guarded.said()
    if None in found:
        pytest.skip("this machine lets nobody read the memory of another process")
    assert any(held for held, _ in found), "the search finds what is there"
    assert not any(real for _, real in found)


def remembered(pid):
    """Whether a process has the placeholder, and the key, in what it can write; None: unknown."""
    held = real = False
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                where, rights = line.split()[:2]
                start, end = (int(each, 16) for each in where.split("-"))
                if not rights.startswith("rw") or end - start > MAPPED_BYTES_MAX:
                    continue
                with contextlib.suppress(OSError, ValueError, OverflowError):
                    memory.seek(start)
                    piece = memory.read(end - start)
                    held |= PLACEHOLDER.encode() in piece
                    real |= REAL.encode() in piece
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError):
        return False, False  # It has ended.
    return held, real


@proves("gateway.real-agents")
def test_the_placeholder_is_what_a_real_agent_s_program_has(guarded):
    plan = gateways_for(guarded.entry, guarded.variables)
    inside = plan.inside(guarded.variables)
    assert REAL not in repr((inside, plan.files, plan.env))
    assert PLACEHOLDER in inside.values()
    assert isinstance(plan.gateways[0].key, Key)
