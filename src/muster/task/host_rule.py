"""What a spec, an agent's entry and a machine's owner write for what a sandbox may reach.

Rule 1: hosts are named, in one spelling: labels of a-z, 0-9 and -, no dot at the end. What any
        resolver would take for an address, in whatever spelling, is no name.
Rule 2: `*.name` is every name below `name`, however deep, and not `name` itself. It stands for one
        owner's names, so `name` has two labels at least.
Rule 3: without a port it is 443. Another one is said.
Rule 4: what a rule covers follows from its text alone: no name is looked up here.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

PORT: Final = 443
NONE: Final = "none"
# Chosen arbitrarily: a list that a person still reads before signing it.
RULES_MAX: Final = 32
_NAME_CHARS_MAX: Final = 253
_LABEL: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_RULE: Final = re.compile(rf"(\*\.)?({_LABEL}(?:\.{_LABEL})*)(?::([1-9][0-9]{{0,4}}))?")
# How a host that is a number ends, as browsers read it: 127.0.0.1, 2130706433, 0x7f.1.
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_V6: Final = re.compile(r"\[?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%\w*)?\]?(:[0-9]+)?")
_SCHEMES: Final = {"http": 80, "https": 443, "ssh": 22, "git": 9418, "ws": 80, "wss": 443}
_SAYS: Final = "write it as api.example.net, git.example.org:8443 or *.example.org"


class HostRule(NamedTuple):
    """A host, or with `below` all hosts below a name, at one port."""

    name: str
    port: int = PORT
    below: bool = False

    def __str__(self) -> str:
        return f"{'*.' if self.below else ''}{self.name}:{self.port}"


def host_rule(text: str) -> HostRule:
    """The rule of a text that `host_refusal` has nothing against."""
    found = _RULE.fullmatch(text)
    assert found is not None, "its form was checked when it was read"
    return HostRule(found[2], int(found[3] or PORT), bool(found[1]))


def host_refusal(text: str) -> str:
    """Why this names nothing that a sandbox could be let reach, or ""."""
    found = _RULE.fullmatch(text)
    if found is None:
        return _of_another_form(text)
    below, name, port = found[1], found[2], int(found[3] or PORT)
    if port > 65_535:
        return "has no port that there is; ports are 1 to 65535"
    if len(name) > _NAME_CHARS_MAX:
        return f"is longer than a host's name may be; it has at most {_NAME_CHARS_MAX} characters"
    if _NUMBER.fullmatch(name):
        return f"is an address, and hosts are let by their names; {_SAYS}"
    if name == "localhost" or name.endswith(".localhost"):
        return "is the sandbox itself, or the machine, of which nothing is reached from inside"
    if below and "." not in name:
        return f"is every host of the world under .{name}; name the hosts, or one owner's"
    return ""


def network_refusal(text: str) -> str:
    """As `host_refusal`, of one word that may also be `none`."""
    if text == NONE:
        return ""
    if text.lower() in {NONE, "off", "no", "false"}:
        return "is not none or a list of hosts; write none"
    return host_refusal(text)


def covers(most: HostRule, rule: HostRule) -> bool:
    """Whether everything that `rule` lets is let by `most`."""
    if most.port != rule.port:
        return False
    if not most.below:
        return most == rule
    return rule.name.endswith(f".{most.name}") or (rule.below and rule.name == most.name)


def uncovered(most: Iterable[HostRule], rules: Iterable[HostRule]) -> tuple[HostRule, ...]:
    """Those of `rules` that nothing of `most` covers, once each and in their order."""
    bounds = tuple(most)
    left = (rule for rule in rules if not any(covers(each, rule) for each in bounds))
    return tuple(dict.fromkeys(left))


def _of_another_form(text: str) -> str:
    near = _nearest(text)
    if near:
        return f"is no host's name as it is written here; write {near}"
    if text == "*" or text.startswith("*:"):
        return f"is every host of the world; {_SAYS}"
    if _V6.fullmatch(text):
        return f"is an address, and hosts are let by their names; {_SAYS}"
    if "*" in text:
        return f"has a * elsewhere than at its beginning; {_SAYS}"
    if not text.isascii():
        return "is not written as it is looked up; write the form that begins with xn--"
    return f"is no host's name; {_SAYS}"


def _nearest(text: str) -> str:
    """What whoever wrote this most likely meant: without scheme, user, path and capitals."""
    scheme, there, rest = text.partition("://")
    if not there:
        scheme, rest = "", text
    rest = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2].strip().lower()
    host, colon, port = rest.partition(":")
    host = host.rstrip(".")
    number = port if colon else str(_SCHEMES.get(scheme.lower(), PORT))
    near = host if number == str(PORT) else f"{host}:{number}"
    return near if near != text and _RULE.fullmatch(near) and not host_refusal(near) else ""
