"""`muster digest`: what an agent is told of what the fleet remembers, for a task or in general."""

from typing import Annotated

from msgspec import Struct

from muster.errors import Denied
from muster.limits import DIGEST_TOKENS, DIGEST_TOKENS_MAX, DIGEST_TOKENS_MIN
from muster.log.fold import body_or_none
from muster.node.services import digests
from muster.node.services.sessions import Sessions
from muster.node.services.showings import Showings
from muster.node.verb import Turns
from muster.task.kinds import TaskOpen
from muster.verbs.declaration import Call, Core, Request, opt, verb
from muster.verbs.find import find_task

_BUDGET = opt("tokens that it may take", ge=DIGEST_TOKENS_MIN, le=DIGEST_TOKENS_MAX)


class Asked(Request, frozen=True):
    task: Annotated[str, opt("what it is for (an agent's own, where it has one)")] = ""
    budget: Annotated[int, _BUDGET] = DIGEST_TOKENS


class Told(Struct, frozen=True):
    """The text, what it takes by our estimate, and what its `m1`, `m2` … name, in their order."""

    text: str
    tokens: int
    shown: list[str]
    left_out: int


@verb("digest", auth="local", agents=True, writes=True, group="Memory", harmless=True)
def digest(core: Core, call: Call, ask: Asked) -> Turns[Told]:
    """What an agent that begins now is told of what the fleet remembers.

    A live session is told it for the project that it works in.

    muster digest --task 7d5e
    muster digest --budget 4000
    """
    part, told_ms = core.part(Showings), core.now.wall_ms
    if call.task and ask.task and not call.task.startswith(ask.task):
        raise Denied("an agent is told what is remembered for its own task: leave --task out")
    reader = part.reader(call)
    work = digests.Work(actor=call.actor if reader is not None else "")
    if call.session:
        project = core.part(Sessions).find(call.session).project
        work = work._replace(repo=project.rstrip("/").rpartition("/")[2])
    if named := call.task or ask.task:
        row = find_task(core, named).row
        opened = body_or_none(core.log.entry(row.opened), TaskOpen)
        if opened is not None:
            work = digests.work_of(opened, row.stream.machine, work.actor)
    found = yield from digests.made(core, work, ask.budget, told_ms)
    if reader is not None and found.text:
        part.write(digests.showing(found, reader, ask.budget, told_ms), call.actor)
    shown = [id.hex() for id in found.shown]
    return Told(found.text, found.tokens, shown, sum(found.left_out))
