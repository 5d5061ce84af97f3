"""Machines between real daemons whose attempts are enclosed, and what their journals say of it."""

from typing import Any

from muster.channel import FIRST, http
from muster.node.host.config import Config, config_text
from muster.node.host.sandbox_config import SandboxConfig
from tests.e2e import agents
from tests.e2e.fleet import Fleet, Machine


def enclose(machine: Machine, *, headless: tuple[str, ...] = (), **says: Any) -> None:
    """As its owner configures it; `says` is what else that one says of sandboxes."""
    config = Config(
        name=machine.name,
        labels=(f"on-{machine.name}",),
        channel={FIRST: http.Options(f"127.0.0.1:{machine.port}")},
        lease_s=agents.LEASE_S,
        headless=headless,
        sandbox=SandboxConfig(default="on", **says),
    )
    machine.home.put("config.toml", config_text(config))


def journal(fleet: Fleet, task: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """What studio wrote down of a task that it did."""
    said = agents.muster(fleet, fleet["studio"], "logs", task["task"], "--json")
    assert said.code == 0, said
    return [each for each in agents.lines(said) if each.get("kind") == kind]
