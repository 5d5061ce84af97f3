"""What doctor, `init` and `join` say of whether work is enclosed on this machine."""

import asyncio
import os
from collections.abc import Iterator

from muster.node.host import clock
from muster.node.host.enclosing import Enclosing, program_of
from muster.node.host.home import Home
from muster.node.host.person_path import person_path
from muster.node.host.sandbox_config import SandboxConfig, uid_of
from muster.task.openings import OFF
from muster.task.route import SANDBOX
from muster.verbs.checks import Check


def of_sandbox(home: Home) -> Iterator[Check]:
    """Whether work is enclosed here. Raises: Broken where config.toml is of no use."""
    config = home.config()
    asked, path = config.sandbox, asyncio.run(person_path(config.path, os.environ))
    found = Enclosing().obstacle(asked, path, clock.read().boot_ms)
    powerful = "as powerful as you are, and can read this home's keys"
    if asked.default == OFF:
        able = "" if found is None else f"; and what asks for one finds none: {found.cause}"
        text = f"work that asks for no sandbox runs without one: it is {powerful}{able}"
        mend = 'say `default = "on"` under [sandbox] in config.toml, unless that is what you want'
        yield Check(
            "sandbox", "note", text, mend if found is None else f"{found.mend}; then {mend}"
        )
    elif found is None:
        user = uid_of(asked.user)
        as_whom = f", as user {user}" if user else ""
        text = f"work is enclosed by {program_of(asked, path)}{as_whom}"
        if asked.off == "allow":
            text += "; a shell that an order says so of (`sandbox: off`) is not"
        yield Check("sandbox", "ok", text)
    else:
        # Who has no work to do here misses nothing.
        state = "wrong" if config.slots and home.has_seed("seed") else "note"
        text = f"work cannot be enclosed: {found.cause}. This machine gets none but what an order "
        text += "says `sandbox: off` of"
        yield Check("sandbox", state, text, found.mend)


def fact(config: SandboxConfig) -> str:
    """What this machine will say of its sandbox, as facts say it."""
    return Enclosing().fact(config, os.environ.get("PATH"), clock.read().boot_ms)[SANDBOX]
