"""The verb that finds what is known by its words, whoever wrote it and wherever that was.

Rule: what is shown counts now, or its state says why it does not; words that somebody typed are
words and no language.
"""

from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from muster.errors import Malformed
from muster.limits import MEMORY_LINE_CHARS_MAX, RECALL_BYTES_MAX, RECALLED_MAX
from muster.log.stream import FLEET
from muster.node.services.recalled import Question, Recalled, readable
from muster.node.services.recalled import recall as found_by
from muster.node.services.search import Search
from muster.node.services.showings import Showings
from muster.node.tasks.actor import said
from muster.node.verb import Column, Turns
from muster.store.index import EVERY_NUMBER
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.known import scope_of, scope_word
from muster.verbs.task import moment

SHOWN: Final = 10
Sort = Literal["", "memory", "run", "task", "decision", "message"]
Most = Annotated[int, Meta(ge=1, le=RECALLED_MAX)]


class Asked(Request, frozen=True):
    words: Annotated[Words, pos("what it is about, in words or a whole sentence")]
    scope: Annotated[str, opt("only this scope: fleet, private or thread:NAME")] = ""
    tag: Annotated[Words, opt("only what has this tag: repo:main; give it several times")] = ()
    of: Annotated[Sort, opt("only this sort of thing")] = ""
    all: Annotated[bool, opt("also what was replaced or refuted", short="a")] = False
    at: Annotated[str, opt("as this machine knew it then: 10m (ago), or 2026-11-20T23:00")] = ""
    limit: Annotated[Most, opt("show so many at most", short="k")] = SHOWN


class Result(Struct, frozen=True, kw_only=True):
    """Something that was found: `id` is its version, or the run, task or message that it is."""

    sort: str
    name: str
    id: str
    scope: str
    state: str
    rank: int | UnsetType = UNSET
    by: str = field(name="from")
    trust: str
    machine: str
    text: str
    t_ms: int


@verb("recall", auth="local", agents=True, writes=True, group="Memory", harmless=True, names="id",
      nothing="Nothing that is known has any of these words; `muster memories` lists what is.",
      columns=(Column("name", form="bold"), Column("state", form="state"),
               Column("text", rank=1, least=16, width=100), Column("from", rank=2),
               Column("t_ms", "when", "ago", rank=2), Column("sort", rank=3),
               Column("scope", rank=3), Column("id", form="id", rank=3)))  # fmt: skip
def recall(core: Core, call: Call, ask: Asked) -> Turns[list[Result]]:
    """Find what is known by its words: memory, ends of runs and tasks, decisions, messages.

    muster recall where do the tests live
    muster recall port --tag repo:main --all
    muster recall port --at 10m
    """
    text = " ".join(ask.words)
    if not text.strip():
        raise Malformed("a question needs words: say what it is about")
    if len(text.encode("utf-8", "replace")) > RECALL_BYTES_MAX:
        raise Malformed(
            f"a question has at most {RECALL_BYTES_MAX} bytes: a few telling words find more"
        )
    wanted = scope_of(core, ask.scope) if ask.scope else None
    search, showings = core.part(Search), core.part(Showings)
    # What is private to a machine or a group is not every agent's.
    agents = showings.reader(call) is not None

    until = EVERY_NUMBER
    if ask.at:
        until = core.log.admissions_at(moment(ask.at, core.now.wall_ms))

    def ask_index() -> Turns[list[Recalled]]:
        scopes = [each for each in readable(core) if wanted in (None, each)]
        scopes = [each for each in scopes if each == FLEET or not agents]
        asked, found = Question(text, scopes, ask.limit, ask.of, ask.tag, ask.all, until), []
        for each in found_by(core, asked):
            if each is None:
                yield
            else:
                found.append(each)
        return found

    found = yield from search.answered(ask_index)
    versions = [each.entry.id for each in found if each.version is not None]
    if versions:
        showings.note(call, "recall", versions, text[:MEMORY_LINE_CHARS_MAX])
    return [_shown(core, each) for each in found]


def _shown(core: Core, found: Recalled) -> Result:
    by = said(core, found.entry)
    return Result(
        sort=found.sort, name=found.name, id=found.about,
        scope=scope_word(core, found.entry.stream.scope), state=found.state,
        rank=UNSET if found.version is None else found.version.rank, by=by.name, trust=by.trust,
        machine=core.membership.name_of(found.entry.stream.machine), text=found.excerpt,
        t_ms=found.entry.header.t[0],
    )  # fmt: skip
