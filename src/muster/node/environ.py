"""What of the daemon's environment an attempt gets, and how its secrets stay out of the log.

Rule 1: an attempt gets what it needs and nothing else: the variables its agent reads (as the
catalogue lists them), how this machine reaches the network, and what `agent_env` names.
Rule 2: a key of one agent is not given to another agent, nor to a shell phase or a check.
Rule 3: the value of a secret becomes no entry: wherever an attempt says it, its name stands.

Values come from the environment in which the daemon was started, and from `agents.env` in the
home, which wins: a daemon started by the system has no shell to inherit from. That file is read
anew for each attempt, so a changed key needs no restart.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from muster.errors import Broken

if TYPE_CHECKING:
    from muster.agent.catalogue import AgentEntry

# Behind a company's proxy, or with its certificates, nothing works without these.
NETWORK: Final = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"),
)
# A shorter value is more likely a word of the language than a key.
SECRET_LENGTH_MIN: Final = 8

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET: Final = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|CAPABILITY)S?(_|$)")


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


class Redaction:
    """Puts the names of secrets in the place of their values."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        known = {
            value: name
            for name, value in variables.items()
            if _SECRET.search(name.upper()) and len(value) >= SECRET_LENGTH_MIN
        }
        # The longest first: one secret may contain another.
        self._known = sorted(known.items(), key=lambda pair: -len(pair[0]))

    def text(self, text: str) -> str:
        for value, name in self._known:
            if value in text:
                text = text.replace(value, f"[{name}]")
        return text

    def fields(self, value: Any) -> Any:
        """The same for every text in a value of an event."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.fields(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.fields(each) for each in value]
        return value
