"""Secrets of a machine as the fleet knows them: their names, who was granted them, and no value.

Rule 1: a spec says names. The value lies on the machine (node/host/secret_store.py), and goes to
the attempts that its owner granted it, by agent, spec and phase; where nothing is granted, to
nobody.
Rule 2: a fact says a name only where it is granted, and to whom, for routing needs no more. Until
when a grant holds, the machine says itself, when an attempt begins.

A grant stands among the tools of a machine, as its MCP servers do: `secret:NAME/agent/spec/phase`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct

from muster.errors import Malformed

NAME: Final = "^(?!MUSTER_)[A-Z_][A-Z0-9_]{0,63}$"
_SAYS_NAME: Final = "is not a secret's name: A-Z, 0-9 and _, and not MUSTER_…"
SecretName = Annotated[
    str,
    Meta(extra={"pattern": NAME, "says": _SAYS_NAME}, extra_json_schema={"pattern": NAME}),
]
SecretNames = SecretName | Annotated[list[SecretName], Meta(min_length=1, max_length=16)]

# How a secret that a machine grants stands among its tools.
PREFIX: Final = "secret:"
# What every attempt has of itself, and what finds the programs that it starts.
_TAKEN: Final = re.compile(r"PATH|HOME|LANG|LC_ALL|TERM|TMPDIR|USER|LOGNAME|(LD|DYLD)_.*")
# A name of a spec, phase or agent, in which `*` stands for any letters; a fact has room for three.
_PATTERN: Final = re.compile(r"[a-z0-9*](?:[a-z0-9*-]{0,39})")
STARS_MAX: Final = 4


def check_name(name: str) -> str:
    """`name` itself. Raises: Malformed where no spec could ask for it, or it is another thing."""
    if not re.fullmatch(NAME, name):
        raise Malformed(f"{name[:80]!r} {_SAYS_NAME}")
    if not is_free(name):
        raise Malformed(f"{name} is a variable that every program needs; call the secret otherwise")
    return name


def is_free(name: str) -> bool:
    """Whether a secret may be called so, and no program misses what else it means."""
    return _TAKEN.fullmatch(name) is None


class Grant(Struct, frozen=True, forbid_unknown_fields=True):
    """Which attempts get a secret: patterns of agent, spec and phase. `until_ms` 0 is no end."""

    agent: str
    spec: str
    phase: str
    granted_ms: int = 0
    until_ms: int = 0

    def check(self) -> None:
        """Raises: Malformed naming the pattern that is none."""
        for field in ("agent", "spec", "phase"):
            pattern = getattr(self, field)
            if not _PATTERN.fullmatch(pattern) or pattern.count("*") > STARS_MAX:
                raise Malformed(
                    f"--{field} {pattern[:60]!r} is no pattern: 1 to 40 of a-z, 0-9, - and *, "
                    f"with at most {STARS_MAX} stars; '*' alone is any"
                )

    @property
    def attempts(self) -> str:
        """The three patterns as a fact has them."""
        return f"{self.agent}/{self.spec}/{self.phase}"

    def is_over(self, now_ms: int) -> bool:
        return 0 < self.until_ms <= now_ms

    def fits(self, agent: str, spec: str, phase: str) -> bool:
        return _fits(self.attempts, (agent, spec, phase))


class Wanted(NamedTuple):
    """The secrets that the attempts of an order are to get, and what it is an order of."""

    names: tuple[str, ...] = ()
    spec: str = ""
    phase: str = ""


NOTHING: Final = Wanted()


def wanted_of(template: Mapping[str, Any]) -> Wanted:
    """As an order says it. Raises: Malformed; an order need not come from a spec that was read."""
    if not template.get("secrets"):
        return NOTHING
    try:
        names = msgspec.convert(template["secrets"], tuple[str, ...])
    except msgspec.ValidationError as error:
        raise Malformed(f"the secrets of this task cannot be read: {error}") from error
    work = (str(template.get("spec", "")), str(template.get("phase", "")))
    return Wanted(tuple(map(check_name, names)), *work)


def facts_of(grants: Iterable[tuple[str, Grant]]) -> dict[str, str]:
    """What a machine says of these grants, by the names of secrets, among its tools."""
    return {f"{PREFIX}{name}/{grant.attempts}": "" for name, grant in grants}


def lack(wanted: Wanted, agent: str, tools: Mapping[str, str]) -> str:
    """Which secret an agent is not granted where these tools are, in words; "" where it has all."""
    for name in wanted.names:
        said = [key.removeprefix(PREFIX) for key in tools if key.startswith(f"{PREFIX}{name}/")]
        given = (each.partition("/")[2] for each in said)
        if not any(_fits(each, (agent, wanted.spec, wanted.phase)) for each in given):
            return f"is not granted the secret {name} there for {wanted.spec}/{wanted.phase}"
    return ""


def _fits(attempts: str, work: tuple[str, str, str]) -> bool:
    """Whether patterns name this work. They may be a fact of anybody's: what is none names none."""
    patterns = attempts.split("/")
    return len(patterns) == len(work) and all(
        _PATTERN.fullmatch(pattern)
        and pattern.count("*") <= STARS_MAX
        and re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name)
        for pattern, name in zip(patterns, work, strict=True)
    )
