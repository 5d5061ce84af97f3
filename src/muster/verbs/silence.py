"""Silences: for which incidents nobody is called for a while, and who said so.

Rule: a silence changes whom is called, and nothing of what is listed.
"""

from typing import Annotated

from msgspec import Struct

from muster.fleet import kinds
from muster.fleet.name import check_word
from muster.fleet.silence_fold import SILENCE_VERB
from muster.limits import SILENCE_MS_MAX
from muster.node.verb import Column, Line
from muster.verbs.declaration import Call, Core, Nothing, Request, opt, pos, verb
from muster.verbs.incident import check_until


class Silencing(Request, frozen=True):
    match: Annotated[
        str, pos("which incidents, by their keys: disk-full/nas, clock-skew:* or lag-*",
                 max_length=200)
    ]  # fmt: skip
    until: Annotated[str, opt("how long: 8h, 2d or a time, 30 days at most; 0s ends it",
                              max_length=40)]  # fmt: skip
    why: Annotated[str, opt("why, for the others and the log", max_length=500)]


class Silenced(Struct, frozen=True):
    """What is silenced until then; `until_ms` is 0 where that ended it."""

    match: str
    until_ms: int
    entry: str


@verb(
    SILENCE_VERB, auth="order", object="match", group="What is true", on="one",
    says=(
        Line("Nobody is called for {match}; that ends {until_ms:ago}.", "until_ms"),
        Line("People are called for {match} again.", "!until_ms"),
    ),
)  # fmt: skip
def silence(core: Core, call: Call, ask: Silencing) -> Silenced:
    """Have nobody called for incidents of a kind, for a while; they are listed all the same.

    muster silence 'clock-skew:*' --until 2h --why 'the time servers are moved'
    muster silence 'lag-*/nas' --until 7d --why 'its line is slow'
    muster silence 'lag-*/nas' --until 0s --why 'it is quick again'
    """
    check_word(ask.match, "what is to be silenced,")
    end_ms = check_until(core, ask.until, SILENCE_MS_MAX, ends=True)
    entry = call.write(kinds.IncidentSilence(ask.match, call.statement, ask.until, ask.why))
    return Silenced(ask.match, end_ms if end_ms > core.now.wall_ms else 0, entry.id.hex())


class Silence(Struct, frozen=True):
    """What is silenced until then, by whom and why."""

    match: str
    until_ms: int
    by: str
    why: str


@verb(
    "silences", watches=("incident",), names="match", auth="local", group="What is true",
    harmless=True, nothing="Nothing is silenced.",
    columns=(
        Column("match", form="bold"), Column("until_ms", "ends", "ago"), Column("by", rank=1),
        Column("why", least=16),
    ),
    then=(Line("`muster silence '{match}' --until 0s --why …` ends it.", "match"),),
)  # fmt: skip
def silences(core: Core, call: Call, ask: Nothing) -> list[Silence]:
    """For which incidents nobody is called now, until when, by whom and why.

    muster silences
    """
    now_ms = core.now.wall_ms
    found = [each for each in core.incidents.silences(now_ms) if each.until_ms > now_ms]
    return [Silence(*each) for each in sorted(found, key=lambda each: (each.until_ms, each.fits))]
