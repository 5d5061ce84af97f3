"""A fleet of real daemons whose workers have real agents, and a scripted model for them.

    with agent_fleet(url) as fleet:
        run = begin(fleet, spec(greet, agent="claude", ...))

The hub holds the repository and the operator's key and has no agent; studio and laptop have Claude
Code and Codex on PATH, each machine with a HOME of its own. Nobody needs credentials: the key is a
word that no log may ever contain (`KEY`), and the model is fake_model.py on 127.0.0.1.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muster.agent.servers import Server
from muster.channel import FIRST, http
from muster.node.host.config import Config, config_text
from tests.agent.world import marked
from tests.cli.world import Said
from tests.e2e import install_agents
from tests.e2e.fleet import NOTES, ROOT, Fleet, Machine, until
from tests.e2e.vendor import CODEX

HERE = Path(__file__).parent
WORDS = Server(command=(sys.executable, str(HERE / "mcp_server.py")), env=("WORD",))
AGENTS = ("claude", "codex")
WORKERS = ("studio", "laptop")
# A secret that is easy to look for: it must be in no log, no journal and no argument list.
KEY = "sk-ant-e2e-do-not-tell-7f3a9c"
# What studio's owner gives the MCP server that studio alone offers; the server says it backwards.
WORD = "a-word-of-studio-51d0e7"
# Half of it is the worker's own: a busy test machine must not lose its lease to Node starting.
LEASE_S = 16


def absent(name: str) -> str:
    """Why an agent cannot be tested here; "" when it can."""
    missing = install_agents.missing(install_agents.folder(), name)
    if not missing:
        return ""
    return f"{', '.join(missing)} not installed: run tests/e2e/install_agents.py"


@contextlib.contextmanager
def scripted_model(folder: Path) -> Iterator[str]:
    """The address of a scripted model; what it was sent is in `folder/requests`."""
    (folder / "requests").touch()
    argv = [sys.executable, str(HERE / "fake_model.py"), str(folder / "requests")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


@contextlib.contextmanager
def agent_fleet(url: str) -> Iterator[Fleet]:
    """Three daemons, up and linked, that see each other's agents."""
    with Fleet(["hub", *WORKERS]) as fleet:
        fleet.hub.home.put_seed("operator.seed", fleet.operator_seed)
        fleet.add_repository()
        for machine in fleet.machines.values():
            settle(machine, url)
        fleet.start()
        names = {name for name in AGENTS if not absent(name)}
        for worker in WORKERS:
            until(lambda w=worker: names <= agents_of(fleet, w), f"{worker}'s agents are known")
        yield fleet
        for machine in fleet.machines.values():
            assert machine.alive, f"{machine.name} ended:\n{machine.log()[-3000:]}"


def agents_of(fleet: Fleet, name: str) -> set[str]:
    found = {m["name"]: m["facts"] for m in fleet.hub.ask("machines")}
    return set((found[name] or {}).get("agents", ()))


def settle(machine: Machine, url: str) -> None:
    """Configuration and environment of a machine, as its owner would set them."""
    config = Config(
        name=machine.name,
        channel={FIRST: http.Options(f"127.0.0.1:{machine.port}")},
        labels=(f"on-{machine.name}",),
        lease_s=LEASE_S,
        agent_env=(NOTES, "MODEL_PROVIDER"),
        mcp={"words": WORDS} if machine.name == "studio" else {},
    )
    machine.home.put("config.toml", config_text(config))
    home = machine.fleet.root / f"{machine.name}-user"
    # Studio has its agents' files and keys where a person has them, laptop where a service has
    # them: another CODEX_HOME, and the keys in agents.env.
    codex = home / ("codex" if machine.name == "laptop" else ".codex")
    codex.mkdir(parents=True)
    (codex / "config.toml").write_text(CODEX.format(url=url))
    machine.env = {"HOME": str(home), "NO_PROXY": "127.0.0.1"}
    if machine.name in WORKERS:
        agents = install_agents.programs_path(install_agents.folder())
        path = machine.fleet.environment(machine)["PATH"]
        keys = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY, "MODEL_PROVIDER": "scripted"}
        machine.env["PATH"] = agents + os.pathsep + path
        if machine.name == "studio":
            machine.env |= keys
            machine.home.put("agents.env", f"WORD={WORD}\n".encode())
        else:
            keys["CODEX_HOME"] = str(codex)
            text = "".join(f"{name}={value}\n" for name, value in keys.items())
            machine.home.put("agents.env", text.encode())


def shell_step(agent: str, command: str) -> dict[str, Any]:
    """A shell command of the model; Codex asks us only for what leaves its own sandbox."""
    beyond = {"sandbox_permissions": "require_escalated", "justification": "the test asks"}
    return {
        "tool": "shell",
        "command": command,
        **({"arguments": beyond} if agent == "codex" else {}),
    }


def prompt(*steps: dict[str, Any]) -> str:
    """What makes the scripted model take these steps; quoted for YAML."""
    return json.dumps(f"Do what the script says. @@script {json.dumps(steps)}")


def begin(fleet: Fleet, text: str, name: str, repo: str = "main") -> str:
    """Hand a spec in on the hub; the run's id."""
    args = {"base": "", "repo": repo, "spec": text, "values": {}}
    return str(fleet.hub.order("run", name, args)["run"])


def tasks(fleet: Fleet, run: str) -> dict[str, dict[str, Any]]:
    """The tasks of a run by their phase, as the hub sees them."""
    return {t["phase"]: t for t in fleet.hub.ask("runs", {"run": run})["tasks"]}


def settled(fleet: Fleet, run: str, within_s: float = 90.0) -> dict[str, Any]:
    """The run, once it has ended."""
    until(
        lambda: fleet.hub.ask("runs", {"run": run})["state"] != "open",
        lambda: json.dumps(fleet.hub.ask("runs", {"run": run}), indent=1),
        within_s=within_s,
    )
    view: dict[str, Any] = fleet.hub.ask("runs", {"run": run})
    return view


def muster(fleet: Fleet, machine: Machine, *words: str, stdin: str = "") -> Said:
    """`muster WORDS` as the operator types it on this machine."""
    done = subprocess.run(
        [sys.executable, "-m", "muster", *words],
        env=typing_environment(fleet, machine), cwd=ROOT, input=stdin, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    return Said(done.stdout, done.stderr, done.returncode)


def typing_environment(fleet: Fleet, machine: Machine) -> dict[str, str]:
    """The person's environment; it lacks the fleet's mark, for a command is no daemon's child."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MUSTER_")}
    return env | {"MUSTER_HOME": str(machine.home.path)}


def lines(said: Said) -> list[Any]:
    """The answers of a command with --json."""
    return [json.loads(line) for line in said.out.splitlines()]


def below(machine: Machine) -> dict[int, str]:
    """What runs of this machine's attempts: their environment names its home."""
    found = marked(f"MUSTER_HOME={machine.home.path}")
    daemon = machine.process.pid if machine.process is not None else 0
    return {pid: line for pid, line in found.items() if pid != daemon and _of_attempt(pid)}


def _of_attempt(pid: int) -> bool:
    try:
        return b"MUSTER_ATTEMPT=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def plain(machine: Machine) -> None:
    """The machine's programs without whatever agents the person who runs the tests has."""
    here = machine.fleet.environment(machine)["PATH"].split(os.pathsep)[:2]
    machine.env["PATH"] = os.pathsep.join([*here, "/usr/local/bin", "/usr/bin", "/bin"])
    options = http.Options(f"127.0.0.1:{machine.port}")
    # Said outright: else the folders of installers in the person's home are looked at, too.
    config = Config(name=machine.name, channel={FIRST: options}, path=machine.env["PATH"])
    machine.home.put("config.toml", config_text(config))


def give_planner(machine: Machine, name: str = "planner", script: str = "") -> None:
    """An agent that needs no program: scripted_agent.py, with the file of its script."""
    entry = {
        "title": "Planner",
        "protocol": "acp",
        "command": [sys.executable, "-m", "tests.e2e.scripted_agent"],
        "program": sys.executable,
        "version_probe": [sys.executable, "--version"],
        "env": {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
            **({"AGENT_SCRIPT": script} if script else {}),
        },
    }
    machine.home.put("agents.json", json.dumps({"version": 1, "agents": {name: entry}}).encode())


@contextlib.contextmanager
def planning(*, repository: bool = False) -> Iterator[Fleet]:
    """A hub with the operator's key, and a studio whose one agent is the planner."""
    with Fleet(["hub", "studio"]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        if repository:
            made.add_repository()
        for machine in made.machines.values():
            plain(machine)
        give_planner(made["studio"])
        made.start()
        until(lambda: "planner" in agents_of(made, "studio"), "the planner is known")
        yield made
