"""A verb as the command line and the router know it: a row of the table of verbs.

Rule 1: nothing heavy is imported, for every command reads the table before it does anything (no
dataclasses: they import `inspect`); a handler and its Request are loaded on use.
Rule 2: `auth` is the authority that a call must bring; there is no default but refusal:

    nothing   anybody, also a peer that proved nothing; enrolment only
    peer      a machine of the fleet, over its own link
    foreign   a machine of another fleet that an operator took in, over its own link; nobody else
    local     a program of the same user on the same machine; from elsewhere as `order`
    order     a statement signed by an operator whose grants allow the verb
    agent     as `order`, or the capability of a running task that names the verb

`runs` is `step` (one step of the daemon's core), `async` (the daemon, but waiting for input or
output), `stream` (as `async`, and it is handed the stream that its call may become) or `client`
(inside the command itself). `target` is the machine that an order without
`--on` is for: the one it is typed on, the hub, the one with the fleet's authority (the one it is
typed on where that holds it, else the hub), or the owner of the task or run that it names; where
that cannot be asked, `owner or all` is for every machine.
"""

from collections.abc import Callable, Generator
from importlib import import_module
from typing import Any, Final, Literal, NamedTuple, TypeVar

Auth = Literal["nothing", "peer", "foreign", "local", "order", "agent"]
Runs = Literal["step", "async", "stream", "client"]
Target = Literal["here", "hub", "authority", "owner", "owner or all"]
# A text that names something: completion knows what there is.
Named = Literal[
    "machine", "task", "run", "message", "thread", "incident", "question", "repository", "template",
    "agent", "branch", "operator",
]  # fmt: skip
Kind = Literal["text", "int", "flag", "words", "file", "place", "texts", "data"] | Named


T = TypeVar("T")
Turns = Generator[None, None, T]
"""A handler that reads much: where it yields, others have their turn before it goes on."""


def at_once(turns: Turns[T]) -> T:
    """All turns in one: of what is known to be little."""
    while True:
        try:
            next(turns)
        except StopIteration as done:
            found: T = done.value
            return found


class Later:
    """What a handler returns that answers when something has happened."""


LATER: Final = Later()


class Arg(NamedTuple):
    """One argument: `position` makes it positional; `words` takes several; a `place` is a folder,
    as seen from where the person stands, or an address; `data` is anything else, for programs.

    `unsigned` arguments go into the options of a call, which say how and never what. Of a verb
    with actions (its first word), `actions` are those that take this argument, () for all, and
    `needed` those that make no sense without it. `empty` says that "" is an answer; elsewhere it
    is a variable of a script that was never set. `minus` are the actions for which a word of it may
    be `-NAME`, which means `NAME-`. `behind`: it is all that stands behind `--`, as it is.
    """

    name: str
    help: str
    kind: Kind = "text"
    position: bool = False
    required: bool = False
    default: str | int | bool | None = None
    choices: tuple[str, ...] = ()
    low: int | None = None
    high: int | None = None
    unsigned: bool = False
    actions: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    empty: bool = False
    short: str = ""
    minus: tuple[str, ...] = ()
    behind: bool = False


# A column of this rank is for whoever asks for all of them, and for what is no terminal.
WIDE: Final = 100


class Column(NamedTuple):
    """A column of a list for people: a field of each row, its heading, and how it is shown.

    `when` is a condition as of a `Line`; the cell of a row that it does not hold for is empty. On a
    narrow terminal the columns of the highest `rank` are left out first, those of rank 0 never,
    those of rank `WIDE` on every terminal, and a text is cut to no fewer than `least` letters; it
    has at most `width` on any terminal.
    """

    field: str
    head: str = ""
    form: Literal["text", "words", "named", "bold", "id", "ago", "state", "span"] = "text"
    width: int = 0
    when: str = ""
    rank: int = 0
    least: int = 8


class Line(NamedTuple):
    """A line of an answer for people, with its fields as `{field}` or, in a form of a column or so
    many letters, `{field:ago}`, `{field:60}`.

    It is shown when all words of `when` hold: `field` where it says something, `field=value` where
    it is that, and either with `!` before it where not.
    """

    text: str
    when: str = ""


class Loss(NamedTuple):
    """What cannot be undone, as a sentence of an answer's form, without a full stop.

    A person is asked first, and a script gives `--yes`, where `when` (as of a `Line`) holds of the
    arguments. `asks` is the hidden verb that says beforehand what is meant, or refuses what would
    be; it gets the arguments of the same names, and what stands behind it: `its-name=ours`, or a
    flag. Where it answers nothing, nothing would be lost. `urgent` is what scripts have always
    done without `--yes`, and what should not wait for a person: only people are asked about it.
    """

    text: str
    when: str = ""
    asks: str = ""
    urgent: bool = False


class Verb(NamedTuple):
    """One action. `hidden` verbs are for machines and programs, not for the help page."""

    name: str
    summary: str
    auth: Auth
    runs: Runs
    handler: str
    args: tuple[Arg, ...] = ()
    # What programs send beside the arguments that people may type.
    data: tuple[Arg, ...] = ()
    group: str = ""
    # Which argument a grant may name; "statement" where the handler checks the statement's own.
    object: str = ""
    # Whether that begins with the id of the machine that acts, alone or before a colon.
    of_machine: bool = False
    # Whether that is a name to be given; every other object is there already.
    naming: bool = False
    target: Target = "here"
    # Whether only an operator may order it, whatever was granted to whom.
    operators_only: bool = False
    # Whether the capability of every task names it, so that its agent may ask for it.
    agents: bool = False
    # Whether a device may order it where its operator names nothing else.
    daily: bool = False
    # Whether it writes although it needs no order of its own.
    writes: bool = False
    # Whether it may be suggested for a mistake: whoever types it after all has changed nothing
    # that cannot be changed back.
    harmless: bool = False
    # What it does that cannot be undone: asked about first, or done with `--yes`.
    destroys: tuple[Loss, ...] = ()
    # What `--on` may mean: nothing, one other machine, or several.
    on: Literal["none", "one", "many"] = "many"
    # Of one that goes to one machine, the actions that several may be asked for.
    each: tuple[str, ...] = ()
    # How several machines do it: each answers once, `tells` as it happens or `waits` until it is
    # over there, or the verb `names` its machines itself, of which there may be several.
    several: Literal["answers", "tells", "waits", "names"] = "answers"
    # The argument of which each of several machines means its own: a run or a task.
    own: str = ""
    # The field of a row that says, where it is there, that a machine did not do all of it.
    undone: str = ""
    # Whether the command leads through it in several steps, by its function in `cli/steps.py`.
    steps: bool = False
    # The function of `cli/sign.py` that signs what stands beside the order itself.
    signs: str = ""
    # The sorts of things (see `verbs/changes.py`) that change what it shows, for `--watch`.
    watches: tuple[str, ...] = ()
    # Whether it is followed: it says nothing for long, and its reader knows.
    followed: bool = False
    # Lines that a person would type, for its help.
    examples: tuple[str, ...] = ()
    # How an answer is shown where `cli/show/` knows no better: by these lines, and a list (the
    # answer, or what this field of it holds) by columns, or by what is said of an empty one;
    # without columns the lines are those of each row.
    says: tuple[Line, ...] = ()
    rows: str = ""
    # The field of a row that names it, for `-o name` and for shells that complete it.
    names: str = ""
    columns: tuple[Column, ...] = ()
    nothing: str = ""
    # What a person may type next, over the answer or the first row of it; told on a terminal alone.
    then: tuple[Line, ...] = ()

    @property
    def hidden(self) -> bool:
        """Whether it is for machines and programs only."""
        return not self.group

    def load(self) -> Callable[..., Any]:
        """The function that answers the verb."""
        module, _, name = self.handler.partition(":")
        found: Callable[..., Any] = getattr(import_module(module), name)
        return found
