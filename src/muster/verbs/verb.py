"""What a row of the table of verbs is made of: a verb and its arguments.

Rule: nothing heavy is imported, for every command reads the table (no dataclasses: they import
`inspect`). What `need`, `place` and `acts` mean is said in `table.py`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, NamedTuple

Need = Literal["nothing", "peer", "local", "order", "agent"]
Place = Literal["daemon", "loop", "client"]
Kind = Literal["text", "int", "flag", "file", "words", "place"]
Acts = Literal["here", "hub", "authority", "owner"]


class Arg(NamedTuple):
    """One argument: `position` makes it positional; `words` takes several; a `place` is a folder,
    as seen from where the person stands, or an address.

    `bare` arguments go into the options of a call, which say how and never what: they are not
    signed. Of a verb with actions (its first word), `actions` are those that take this argument,
    () for all, and `needed` those that make no sense without it. `empty` says that "" is an answer;
    elsewhere it is a variable of a script that was never set.
    """

    name: str
    help: str
    kind: Kind = "text"
    position: bool = False
    required: bool = False
    default: str | int | bool | None = None
    choices: tuple[str, ...] = ()
    bare: bool = False
    actions: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    empty: bool = False


class Verb(NamedTuple):
    """One action. `hidden` verbs are for machines and programs, not for the help page."""

    name: str
    summary: str
    need: Need
    place: Place
    handler: str
    args: tuple[Arg, ...] = ()
    hidden: bool = False
    # Which argument a grant may name; "statement" where the handler checks the statement's own.
    object: str = ""
    acts: Acts = "here"
    # Whether only an operator may order it, whatever was granted to whom.
    operators_only: bool = False
    # What cannot be undone, as a sentence over its arguments: asked about first, never suggested.
    destroys: str = ""
    # The verb that says beforehand what is meant, for that sentence, or refuses what would be.
    asks: str = ""
    # Whether `--on` may name another machine, for a verb inside the command.
    elsewhere: bool = False

    @property
    def takes_on(self) -> bool:
        """Whether another machine may do it."""
        return self.place != "client" or self.elsewhere

    @property
    def takes_many(self) -> bool:
        """Whether `--on` may mean several machines; what is followed, or ends here, takes one."""
        return self.place != "client" and self.name != "run"

    def load(self) -> Callable[..., Any]:
        """The function that answers the verb."""
        module, _, name = self.handler.partition(":")
        found: Callable[..., Any] = getattr(import_module(module), name)
        return found


def pos(name: str, help: str, **more: Any) -> Arg:
    """A word at its place; required, where nothing else is said."""
    return Arg(name, help, position=True, **{"required": True, **more})


def flag(name: str, help: str, **more: Any) -> Arg:
    """Something that is said or not."""
    return Arg(name, help, kind="flag", default=False, **more)


def opt(name: str, help: str, default: str | int = "", **more: Any) -> Arg:
    """A word behind its name; a number where the default is one."""
    kind: Kind = "int" if isinstance(default, int) else "text"
    return Arg(name, help, **{"kind": kind, "default": default, **more})


def words(name: str, help: str, **more: Any) -> Arg:
    """Something that may be given several times."""
    return Arg(name, help, kind="words", default="", **more)
