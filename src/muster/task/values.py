"""How results of earlier phases reach later ones, and why no result ever becomes shell source.

Rule 1: in a prompt `${test.summary}` is replaced by the value, as text, once: a reference inside
        a value stays what it is.
Rule 2: shell source names the environment variable, "$MUSTER_TEST_SUMMARY", and `${test.summary}`
        in it is refused. The source that runs is the text that was signed; no value is put in.
Rule 3: a value is handed on whole or not at all: beyond the bound, and with NUL, it is refused by
        name. Control characters, which could steer a terminal, are replaced.
Rule 4: `$${a.b}` is the text `${a.b}`.
Rule 5: what is longer than a variable can be is in a file: MUSTER_TEST_SUMMARY_FILE names it, for
        any value of a phase and of any length.

Sources are phases (`${test.summary}`), `${each.path}`, `${inputs.NAME}` and `${run.name}`,
`${run.id}`. A phase with `each` gives one line per match; a race gives the winner's values.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from muster import limits
from muster.errors import Malformed
from muster.task import review

# What a phase yields.
PHASE_VALUES: Final = (
    *("agent", "artefacts", "branch", "commit", "machine"),
    *("output", "status", "summary", "tests", "usage"),
)
# What a phase yields that judges another one; and of both, how many rounds it took.
ROUNDS: Final = "rounds"
REVIEW_VALUES: Final = (*review.VALUES, ROUNDS)
# What the next round is told of a review.
_SAID: Final = (*review.VALUES, "agent", "machine")
_YIELDED: Final = frozenset({*PHASE_VALUES, *REVIEW_VALUES})
# The names that are no phases, so that no phase may have them.
RESERVED: Final = frozenset({"each", "inputs", "run"})
RUN_VALUES: Final = ("id", "name")
# Among the values of `run`: the hash over the results before a task that are too large for it.
RESULTS: Final = "results"
# The oldest Muster that can read the order of the run, where an older one cannot.
SINCE: Final = "since"
EACH_VALUES: Final = ("path",)
# Names the values that a phase had and does not hand on: there was a secret in them.
WITHHELD: Final = "withheld"
# These are handed to a shell phase even if it names none: short, and what scripts ask for.
_ALWAYS: Final = frozenset({"branch", "commit", "status", "summary", "path", "id", "name"})
_GIVEN: Final = _ALWAYS | {WITHHELD}
# Behind the name of a value's variable: the variable that names a file with the value.
FILE: Final = "_FILE"
FILE_VALUE: Final = "-file"

_REFERENCE: Final = re.compile(r"\$(\$?)\{([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\}")
_LOOSE: Final = re.compile(
    r"\$\{ {0,8}[A-Za-z0-9_-]{1,60} {0,8}\. {0,8}[A-Za-z0-9_-]{1,60} {0,8}\}"
)
_VARIABLE: Final = re.compile(r"MUSTER_[A-Z0-9_]+")
_CONTROL: Final = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

Values = Mapping[str, Mapping[str, str]]


class Reference(NamedTuple):
    """`${source.value}` in a text."""

    source: str
    value: str

    def __str__(self) -> str:
        return f"${{{self.source}.{self.value}}}"


def references(text: str, *, escaped: bool = False) -> list[Reference]:
    """Every reference in a text, once each, in order; with `escaped` also `$${a.b}`."""
    found = [Reference(m[2], m[3]) for m in _REFERENCE.finditer(text) if escaped or not m[1]]
    return list(dict.fromkeys(found))


def misspelt(text: str) -> list[str]:
    """What was probably meant to be a reference: `${ test.summary }`."""
    return [m[0] for m in _LOOSE.finditer(text) if not _REFERENCE.fullmatch(m[0])]


def named_variables(text: str) -> frozenset[str]:
    """The MUSTER_… variables that shell source names itself."""
    return frozenset(_VARIABLE.findall(text))


class Uses(NamedTuple):
    """Which values the texts of a phase use."""

    named: frozenset[Reference]
    variables: frozenset[str]

    def names(self, name: str, value: str) -> bool:
        """Whether a text asks for this value itself, in whatever way."""
        key = variable(name, value)
        known = Reference(name, value) in self.named
        return known or key in self.variables or self.as_file(name, value)

    def as_file(self, name: str, value: str) -> bool:
        """Whether a text asks for a file with this value."""
        return variable(name, value) + FILE in self.variables

    def takes(self, name: str, value: str) -> bool:
        """Whether the phase is given this value."""
        return value in _GIVEN or name == "inputs" or self.names(name, value)

    def sources(self, phases: Iterable[str]) -> set[str]:
        """The phases whose values the texts name, as references or as variables."""
        begins = {variable(phase, ""): phase for phase in phases} if self.variables else {}
        found = {begins[b] for b in begins if any(v.startswith(b) for v in self.variables)}
        return found.union(reference.source for reference in self.named)


def uses(texts: Iterable[str]) -> Uses:
    """What the texts use."""
    named: set[Reference] = set()
    variables: set[str] = set()
    for text in texts:
        if "$" in text or "MUSTER_" in text:
            named.update(references(text))
            variables.update(named_variables(text))
    return Uses(frozenset(named), frozenset(variables))


def texts_of(template: Mapping[str, Any]) -> list[str]:
    """Every text of an order in which a value may be named."""
    own: Mapping[str, Any] = template.get("env") or {}
    keys = ("do", "check", "asked")
    return [str(template.get(key, "")) for key in keys] + [str(text) for text in own.values()]


def uses_of(template: Mapping[str, Any]) -> Uses:
    """What an order uses: what its texts name, and in a later round what the reviewers said."""
    used, said = uses(texts_of(template)), set[Reference]()
    if review.round_of(str(template.get("instance", ""))) > 1:
        said = {Reference(str(n), v) for n in template.get("reviewers") or () for v in _SAID}
    return used._replace(named=used.named | said)


def withheld(known: Mapping[str, str]) -> frozenset[str]:
    """The values that a phase had and does not hand on."""
    return frozenset(known.get(WITHHELD, "").split())


def variable(name: str, value: str) -> str:
    """The environment variable of a value: (`sign-off`, `summary`) -> MUSTER_SIGN_OFF_SUMMARY."""
    return f"MUSTER_{name}_{value}".replace("-", "_").upper()


def clean(text: str) -> str:
    """A text as it is handed on: without what could steer a terminal, lines end as on Unix."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def bounded(name: str, value: str, text: str) -> str:
    """A value fit to be handed on.

    Raises:
        Malformed: it contains NUL, which no environment and no prompt can hold, or is too long.

    """
    if "\0" in text:
        raise Malformed(f"the value {name}.{value} contains a NUL byte; it is not handed on")
    found = clean(text)
    size = len(found.encode())
    if size > limits.VALUE_BYTES_MAX:
        raise Malformed(too_long(name, value, size))
    return found


def too_long(name: str, value: str, size: int) -> str:
    """Why a value is not handed on, and what to do instead."""
    return (
        f"${{{name}.{value}}} has {size} bytes, and {limits.VALUE_BYTES_MAX} is the most that is "
        f"handed on; let {name} write it into a file and deliver that"
    )


def prompt(text: str, values: Values) -> str:
    """The text for an agent, with every reference replaced by its value.

    Raises:
        Malformed: a value is missing, cannot be handed on, or the whole becomes too long.

    """
    size = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal size
        if match[1]:
            return match[0][1:]
        value = _value(values, Reference(match[2], match[3]))
        # Counted while replacing: a reference repeated a thousand times must not fill the memory.
        size += len(value.encode())
        if size > limits.PROMPT_BYTES_MAX:
            raise Malformed(f"the prompt is over {limits.PROMPT_BYTES_MAX} bytes; name less in it")
        return value

    return _REFERENCE.sub(replaced, text)


def command(text: str, values: Values | None = None) -> str:
    """The shell source of a `do` or `check`, as it was signed but for the ends of its lines.

    Raises:
        Malformed: it refers to a value otherwise than by its variable; or one of `values` that it
            names is longer than a variable can be.

    """
    if named := references(text, escaped=True):
        raise Malformed(f"it refers to {named[0]} {by_variable(named[0])}")
    used = named_variables(text)
    for name, known in (values or {}).items():
        for value, of_it in known.items():
            key = variable(name, value)
            if key in used:
                check_fits(key, of_it, f"read it from the file that ${key}{FILE} names")
    # A shell takes the carriage return of a text from Windows for a part of the last word.
    return text.replace("\r\n", "\n")


def by_variable(reference: Reference) -> str:
    """What to write for a reference in shell source, as the end of a sentence."""
    return f'in shell source, where a value is a variable: write "${variable(*reference)}"'


def check_fits(key: str, value: str, instead: str) -> None:
    """Raises: Malformed where the operating system takes no variable as long as this one."""
    size = _variable_size(key, value)
    if size > limits.VARIABLE_BYTES_MAX:
        raise Malformed(
            f"the variable {key} would take {size} bytes, and {limits.VARIABLE_BYTES_MAX} is the "
            f"most that a system hands to a program; {instead}"
        )


def _variable_size(key: str, value: str) -> int:
    # As it is handed over: NAME=value, and the NUL behind it.
    return len(key) + len(value.encode("utf-8", "replace")) + 2


def environment(texts: Iterable[str], values: Values) -> dict[str, str]:
    """The variables of a phase: the short values, and whatever its texts name.

    A value that is longer than a variable can be is left out: an agent has it in its prompt, and
    `command` refuses source that names it.

    Raises:
        Malformed: a value that is named is missing, or cannot be handed on; or all together are
            more than a system hands to a program.

    """
    used = uses(texts)
    result = {variable(*ref): _value(values, ref) for ref in sorted(used.named)}
    for name, known in values.items():
        kept_back = withheld(known)
        for value, text in known.items():
            key = variable(name, value)
            if value in kept_back or value == WITHHELD:
                continue
            short = used.takes(name, value) and len(text) < limits.VARIABLE_BYTES_MAX
            if short or key in used.variables or used.names(name, value):
                result[key] = bounded(name, value, text)
    most = limits.VARIABLE_BYTES_MAX
    found = {k: v for k, v in result.items() if _variable_size(k, v) <= most}
    total = sum(_variable_size(key, value) for key, value in found.items())
    if total > limits.ENVIRONMENT_BYTES_MAX:
        raise Malformed(
            f"the values that this phase names take {total} bytes as variables, and "
            f"{limits.ENVIRONMENT_BYTES_MAX} is the most; read the long ones from files "
            "(MUSTER_PHASE_VALUE_FILE names one)"
        )
    return found


def check_not_withheld(known: Mapping[str, str], reference: Reference) -> None:
    """Raises: Malformed where the phase does not hand this value on."""
    if reference.value in withheld(known):
        raise Malformed(
            f"{reference} is not handed on: it held a secret of the machine that said it; "
            "keep the secret out of what the phase prints"
        )


def _value(values: Values, reference: Reference) -> str:
    known = values.get(reference.source)
    if known:
        check_not_withheld(known, reference)
    # A phase that is done need not yield everything: a check has no commit, a shell no usage.
    text = (
        known.get(reference.value, "" if reference.value in _YIELDED else None) if known else None
    )
    if text is None:
        raise Malformed(f"{reference} has no value; nothing is known of {reference.source}")
    return bounded(reference.source, reference.value, text)
