"""What an attempt is told, what it reports, and what every way of running one promises.

Rule 1: the order is complete: the environment is the whole environment, nothing is inherited.
Rule 2: an attempt always ends with exactly one outcome, whatever happens to its process.
Rule 3: no floats in events: they become signed entries, and canonical JSON has none.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from muster.agent.policy import Policy
from muster.limits import APPROVAL_MS

Status = Literal["ok", "failed", "cancelled", "timeout", "error"]
"""ok and failed are the agent's word; error means that it could not be run or was lost."""

# What a program needs to find its way; everything else is given on purpose or not at all.
KEPT_VARIABLES: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TERM", "TMPDIR", "USER", "LOGNAME")


class AttemptOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One attempt at one task, complete."""

    task: str
    epoch: tuple[int, int]
    agent: str
    """A name of the catalogue."""
    cwd: str
    env: dict[str, str]
    """The whole environment of the agent; see `environment` for a minimal one."""
    secrets: dict[str, str] = {}
    """What must not be written down, by the name that stands in its place (mask.py)."""
    prompt: str = ""
    """What an AI agent is asked; empty for a plain command."""
    command: str = ""
    """What a plain agent runs (the `shell`)."""
    shell: Literal["sh", "bash"] = "sh"
    shell_only: tuple[str, ...] = ()
    """Variables of `env` that a plain agent's own source has, and nothing that it starts."""
    timeout_s: float = 3600.0
    grace_s: float = 5.0
    """Between asking, TERM and KILL each."""
    policy: Policy = Policy()
    ask_timeout_s: float = APPROVAL_MS / 1000
    """After this an unanswered permission question is a no."""
    mode: str = ""
    """The agent's own session mode, by its own name; empty takes the catalogue's."""
    model: str = ""
    """The model, by the agent's own name for it; empty leaves it to the agent."""
    resume: str = ""
    """The session of an attempt that was cut off, by the agent's own name, to be gone on with."""
    resume_opened_ms: int = 0
    """When that session was opened, by the wall clock."""
    mcp: tuple[dict[str, Any], ...] = ()
    """The MCP servers that it has, as ACP describes them."""
    mcp_file: str = ""
    """The same for a program that reads a file: where it is."""
    mcp_toml: dict[str, str] = {}
    """Each by its name, as a program reads it that has tables of TOML."""
    mcp_json: str = ""
    """All of them as a configuration of JSON."""
    mcp_env: dict[str, str] = {}
    """The variables that these name."""
    sandbox: dict[str, Any] = {}
    """The sandbox of its program (sandbox/profile.py has the fields); {} for none."""
    go_on: str = ""
    """What the agent is asked in a session that it goes on with; it knows the rest."""


class AgentEvent(msgspec.Struct, frozen=True):
    """Something that happened in an attempt; becomes a journal entry as it happens."""

    kind: str
    fields: dict[str, Any]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended."""

    status: Status
    exit_code: int | None = None
    summary: str = ""
    tail: str = ""
    """The output, standard error included: as much of its end as a phase hands on."""
    said_bytes: int = 0
    """How long all of the output was."""
    usage: dict[str, int] = {}
    fault: Literal["", "agent", "machine"] = ""
    """What of this machine failed before the agent could be asked; "" when it is the agent's."""
    logged_out: bool = False
    """Its model, or the program itself, said that it has no account."""
    masked: tuple[str, ...] = ()
    """The names of the secrets that it said."""
    survivors: tuple[int, ...] = ()
    """Processes that could not be ended (stuck in the kernel); nearly always empty."""


OnEvent = Callable[[AgentEvent], None]


def environment(inherited: Mapping[str, str], extra: Mapping[str, str] = {}) -> dict[str, str]:
    """A minimal environment for an attempt: the kept variables, then what is given on purpose.

    PATH is as its person means it: the environment that Muster itself is installed in comes last.
    Who starts the daemon with that environment active would else give every attempt our Python,
    with our libraries, in the place of the project's. Programs there, `muster` among them, are
    still found.
    """
    kept = {name: inherited[name] for name in KEPT_VARIABLES if name in inherited}
    if "PATH" in kept and sys.prefix != sys.base_prefix:
        ours = os.path.realpath(os.path.dirname(sys.executable))
        folders = kept["PATH"].split(os.pathsep)
        own = [each for each in folders if os.path.realpath(each or ".") == ours]
        kept["PATH"] = os.pathsep.join([each for each in folders if each not in own] + own[:1])
    return {"LANG": "C.UTF-8", "TERM": "dumb", **kept, **extra}
