"""How results of earlier phases reach later ones, and why no result ever becomes shell source.

Rule 1: in a prompt `${test.summary}` is replaced by the value, as text, once: a reference inside
        a value stays what it is.
Rule 2: in shell source `${test.summary}` becomes a reference to the environment variable
        MUSTER_TEST_SUMMARY, in double quotes. The source that runs depends on the spec alone,
        never on a value; source.py decides where a reference may stand.
Rule 3: a value with NUL is refused; a long one is cut, with a mark that says so; other control
        characters, which could steer a terminal, are replaced.
Rule 4: `$${a.b}` is the text `${a.b}`.

Sources are phases (`${test.summary}`), `${each.path}`, `${inputs.NAME}` and `${run.name}`,
`${run.id}`. A phase with `each` gives one line per match; a race gives the winner's values.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Malformed
from muster.task import source

# What a phase yields and how many bytes of it are handed on. A commit has 40 or 64 digits.
PHASE_VALUES: Final[dict[str, int]] = {
    "agent": 64,
    "artefacts": 4 * 1024,
    "branch": 256,
    "commit": 64,
    "machine": 128,
    "output": 16 * 1024,
    "status": 32,
    "summary": 4 * 1024,
    "tests": 256,
    "usage": 256,
}
# The names that are no phases, so that no phase may have them.
RESERVED: Final = frozenset({"each", "inputs", "run"})
RUN_VALUES: Final[dict[str, int]] = {"id": 128, "name": 64}
EACH_VALUES: Final[dict[str, int]] = {"path": 200}
_INPUT_BYTES_MAX: Final = 4 * 1024
# These are handed to a shell phase even if it names none: short, and what scripts ask for.
_ALWAYS: Final = frozenset({"branch", "commit", "status", "summary", "path", "id", "name"})
# Of a log the end tells what happened; of everything else the beginning.
_KEEP_END: Final = frozenset({"output"})

_REFERENCE: Final = re.compile(r"\$(\$?)\{([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\}")
_LOOSE: Final = re.compile(
    r"\$\{ {0,8}[A-Za-z0-9_-]{1,60} {0,8}\. {0,8}[A-Za-z0-9_-]{1,60} {0,8}\}"
)
_VARIABLE: Final = re.compile(r"MUSTER_[A-Z0-9_]+")
_CONTROL: Final = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

# Names the values that a phase had and does not hand on: there was a secret in them.
WITHHELD: Final = "withheld"

Values = Mapping[str, Mapping[str, str]]


class Reference(NamedTuple):
    """`${source.value}` in a text."""

    source: str
    value: str

    def __str__(self) -> str:
        return f"${{{self.source}.{self.value}}}"


def references(text: str) -> list[Reference]:
    """Every reference in a text, once each, in order."""
    found = [Reference(m[2], m[3]) for m in _REFERENCE.finditer(text) if not m[1]]
    return list(dict.fromkeys(found))


def misspelt(text: str) -> list[str]:
    """What was probably meant to be a reference: `${ test.summary }`."""
    return [m[0] for m in _LOOSE.finditer(text) if not _REFERENCE.fullmatch(m[0])]


def named_variables(text: str) -> frozenset[str]:
    """The MUSTER_… variables that shell source names itself."""
    return frozenset(_VARIABLE.findall(text))


def sources(texts: Iterable[str], phases: Iterable[str]) -> set[str]:
    """The phases whose values the texts name, as references or as variables."""
    found: set[str] = set()
    for text in texts:
        if "$" not in text and "MUSTER_" not in text:
            continue
        found.update(reference.source for reference in references(text))
        variables = named_variables(text)
        if variables:
            found |= {p for p in phases if any(v.startswith(variable(p, "")) for v in variables)}
    return found


def variable(name: str, value: str) -> str:
    """The environment variable of a value: (`sign-off`, `summary`) -> MUSTER_SIGN_OFF_SUMMARY."""
    return f"MUSTER_{name}_{value}".replace("-", "_").upper()


def bounded(name: str, value: str, text: str) -> str:
    """A value fit to be handed on.

    Raises:
        Malformed: it contains NUL, which no environment and no prompt can hold.

    """
    if "\0" in text:
        raise Malformed(f"the value {name}.{value} contains a NUL byte; it is not handed on")
    clean = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    known = {"run": RUN_VALUES, "each": EACH_VALUES}.get(name, PHASE_VALUES)
    most = _INPUT_BYTES_MAX if name == "inputs" else known.get(value, _INPUT_BYTES_MAX)
    raw = clean.encode()
    if len(raw) <= most:
        return clean
    mark = f"[cut: {most} of {len(raw)} bytes]"
    if value in _KEEP_END:
        return f"{mark}\n" + raw[-most:].decode(errors="ignore")
    return raw[:most].decode(errors="ignore") + f"\n{mark}"


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
        size += len(value)
        if size > limits.PROMPT_BYTES_MAX:
            raise Malformed(f"the prompt is over {limits.PROMPT_BYTES_MAX} bytes; name less in it")
        return value

    return _REFERENCE.sub(replaced, text)


def command(text: str) -> str:
    """The shell source of a `do` or `check`: references become quoted variables.

    Raises:
        Malformed: a reference stands where a shell would not expand it as one word.

    """
    # A shell takes the carriage return of a text from Windows for a part of the last word.
    text = text.replace("\r\n", "\n")
    edits, refused = source.placed(text)
    if refused:
        raise Malformed(refused[0])
    parts, at = [], 0
    for edit in edits:
        parts += [text[at : edit.start], edit.text(variable(edit.source, edit.value))]
        at = edit.end
    return "".join([*parts, text[at:]])


def environment(texts: Iterable[str], values: Values) -> dict[str, str]:
    """The variables of a shell phase: the short values, and whatever its texts name.

    Raises:
        Malformed: a value that is named is missing, or one cannot be handed on.

    """
    named: set[Reference] = set()
    variables: set[str] = set()
    for text in texts:
        named.update(references(text))
        variables.update(named_variables(text))
    result = {variable(*ref): _value(values, ref) for ref in sorted(named)}
    for name, known in values.items():
        withheld = known.get(WITHHELD, "").split()
        for value, text in known.items():
            key = variable(name, value)
            if value in withheld:
                continue
            if value in _ALWAYS or name == "inputs" or key in variables:
                result[key] = bounded(name, value, text)
    return result


def _value(values: Values, reference: Reference) -> str:
    known = values.get(reference.source)
    if known and reference.value in known.get(WITHHELD, "").split():
        raise Malformed(
            f"{reference} is not handed on: it held a secret of the machine that said it; "
            "keep the secret out of what the phase prints"
        )
    # A phase that is done need not yield everything: a check has no commit, a shell no usage.
    text = (
        known.get(reference.value, "" if reference.value in PHASE_VALUES else None)
        if known
        else None
    )
    if text is None:
        raise Malformed(f"{reference} has no value; nothing is known of {reference.source}")
    return bounded(reference.source, reference.value, text)
