"""The texts that a spec may write for a value, as types.

Rule: a type says all of a text's form: its length, a pattern with the sentence for what does not
match, or a function that gives the sentence (decode.py reads both).
"""

from typing import Annotated, Final

from msgspec import Meta

from muster import limits
from muster.duration import DURATION
from muster.task.host_path import host_path_refusal, writable_refusal
from muster.task.host_rule import RULES_MAX, host_refusal, network_refusal
from muster.task.units import (
    SIZE,
    branch_refusal,
    branches_refusal,
    glob_refusal,
    path_refusal,
    switch_refusal,
    system_refusal,
    versions_refusal,
)


def matching(pattern: str, says: str) -> Meta:
    """A text that matches; `says` is the sentence for one that does not.

    Not Meta(pattern=…): msgspec 0.22 counts references wrongly for `text with a pattern | list`
    and the interpreter dies of it, mostly at exit (tests/task/test_spec.py keeps watch).
    """
    return Meta(extra={"pattern": pattern, "says": says}, extra_json_schema={"pattern": pattern})


NAME: Final = "^[a-z0-9][a-z0-9-]{0,39}$"
_SAYS_NAME = "is not a name: 1 to 40 of a-z, 0-9 and -, not starting with -"

Name = Annotated[str, matching(NAME, _SAYS_NAME)]
Word = Annotated[
    str,
    matching(
        "^[A-Za-z0-9][A-Za-z0-9._+-]{0,39}$",
        "is not a plain word: 1 to 40 of letters, digits and . _ + -",
    ),
]
# A model or a mode by its agent's own name for it. It becomes an argument: none is an option.
Setting = Annotated[
    str, matching(r"^[A-Za-z0-9][A-Za-z0-9._:/@\[\]#-]{0,119}$", "is not a name of an agent's own")
]
Duration = Annotated[
    str,
    matching(DURATION, "is not a duration; write a number and a unit, as 45s, 10m, 2h or 1h30m"),
]
Size = Annotated[
    str, matching(SIZE, "is not an amount of memory; write a number and a unit, as 512MiB or 8GiB")
]
Versions = Annotated[str, Meta(min_length=1, max_length=128, extra={"refusal": versions_refusal})]
System = Annotated[str, Meta(extra={"refusal": system_refusal})]
Path = Annotated[str, Meta(min_length=1, max_length=200, extra={"refusal": path_refusal})]
Glob = Annotated[str, Meta(min_length=1, max_length=200, extra={"refusal": glob_refusal})]
Branch = Annotated[str, Meta(min_length=1, max_length=200, extra={"refusal": branch_refusal})]
Branches = Annotated[str, Meta(min_length=1, max_length=200, extra={"refusal": branches_refusal})]
Text = Annotated[str, Meta(min_length=1, max_length=limits.SPEC_TEXT_BYTES_MAX)]
Command = Annotated[str, Meta(min_length=1, max_length=4096)]
Variable = Annotated[
    str,
    matching(
        "^(?!MUSTER_)[A-Z_][A-Z0-9_]{0,63}$",
        "is not a variable's name: A-Z, 0-9 and _, and not MUSTER_…",
    ),
]
Value = Annotated[str, Meta(max_length=1024)]
Names = Name | Annotated[list[Name], Meta(min_length=1, max_length=16)]
Words = Word | Annotated[list[Word], Meta(min_length=1, max_length=16)]
# Of a sandbox: whether there is one, what is reached from inside, what is shown of the machine.
_SWITCH: Final = {"enum": ["on", "off"]}
Switch = Annotated[
    str, Meta(min_length=1, extra={"refusal": switch_refusal}, extra_json_schema=_SWITCH)
]
Host = Annotated[str, Meta(min_length=1, max_length=260, extra={"refusal": host_refusal})]
Hosts = Annotated[list[Host], Meta(min_length=1, max_length=RULES_MAX)]
Network = (
    Annotated[str, Meta(min_length=1, max_length=260, extra={"refusal": network_refusal})] | Hosts
)
HostPath = Annotated[str, Meta(min_length=1, max_length=200, extra={"refusal": host_path_refusal})]
Writable = Annotated[str, Meta(min_length=1, max_length=200, extra={"refusal": writable_refusal})]
