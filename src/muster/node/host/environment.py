"""What of the daemon's environment an attempt gets, and what of it is a secret.

Rule 1: an attempt gets what it needs and nothing else: the variables its agent reads (as the
catalogue lists them), how this machine reaches the network, and what `agent_env` names.
Rule 2: a key of one agent is not given to another agent, nor to a shell phase or a check.
Rule 3: a secret is what this machine's owner gives to attempts: the values of `agents.env` and of
what `agent_env` names, unless they plainly are none, and the keys of the agents. The variables of
a spec are no secrets, however they are called: everybody in the fleet can read them.
Rule 4: every secret of the machine is kept out of the log, also where an attempt was not given it:
an attempt can read the files of its user (agent/mask.py hides them).

Values come from the environment in which the daemon was started, and from `agents.env` in the
home, which wins: a daemon started by the system has no shell to inherit from. That file is read
anew for each attempt, so a changed key needs no restart.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from muster.errors import Broken

if TYPE_CHECKING:
    from muster.agent.catalogue import AgentEntry

# Behind a company's proxy, or with its certificates, nothing works without these.
NETWORK: Final = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"),
)

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET: Final = re.compile(
    r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|CREDENTIAL|AUTH|HEADER|PAT|DSN)S?(_|$)"
)
_PLAIN: Final = re.compile(r"[0-9.:]{1,15}|[a-z]{1,16}([._-][a-z0-9]{1,8}){0,3}|[A-Za-z]{1,6}")


def parse(text: str, what: str) -> dict[str, str]:
    """The lines `NAME=VALUE` of an environment file, quotes around a value taken off.

    Raises: Broken naming the line that is none; never its text, which may be a secret.
    """
    found = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()) or "\0" in value:
            raise Broken(f"{what}, line {number}: this is not NAME=VALUE; mend the line")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name.strip()] = value
    return found


def given(
    source: Mapping[str, str], entry: "AgentEntry | None", named: Iterable[str]
) -> dict[str, str]:
    """What an attempt gets of `source`; `entry` is None for the shell."""
    reads = entry.variables if entry is not None else ()
    return {name: source[name] for name in (*NETWORK, *reads, *named) if name in source}


def secrets(
    inherited: Mapping[str, str],
    file: Mapping[str, str],
    entries: Iterable["AgentEntry"],
    named: Iterable[str],
) -> dict[str, str]:
    """What must not be written down, by the variables that have it.

    `inherited` is the daemon's environment, `file` what agents.env says, `named` is `agent_env`.
    """
    from muster.agent.mask import password  # noqa: PLC0415 - no command of a person needs it

    source = {**inherited, **file}
    agents = {name for entry in entries for name in entry.variables}
    found: dict[str, str] = {name: password(source[name]) for name in NETWORK if name in source}
    for name in agents | set(named) | set(file):
        value = source.get(name, "")
        # The catalogue knows its own variables; of a person's only the name and the value tell.
        # What is a path that is here, a number, or a few words of small letters can be no key.
        public = not is_key(name) and (
            name in agents
            or _PLAIN.fullmatch(value) is not None
            or all(os.path.isabs(p) and os.path.exists(p) for p in value.split(os.pathsep))
        )
        found[name] = password(value) if public else value
    return {name: value for name, value in found.items() if value}


def is_key(name: str) -> bool:
    """Whether a variable of this name holds a key, and not what a person only keeps to himself."""
    return _SECRET.search(name.upper()) is not None
