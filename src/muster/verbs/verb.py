"""The old form of a declaration, until every verb has its own; see `declaration.py`."""

from typing import Any, Final

from muster.node.verb import Arg, Kind
from muster.node.verb import Verb as Row
from muster.verbs.examples import EXAMPLES

_HARMLESS: Final = (
    "ask", "check", "fetch", "logs", "questions", "run",
    "runs", "schema", "tasks", "why",
)  # fmt: skip
SHOWN: Final = "?"


def Verb(  # noqa: N802, PLR0917 - it stands where the class stood
    name: str, summary: str, auth: Any, runs: Any, handler: str, args: tuple[Arg, ...] = (),
    *, hidden: bool = False, elsewhere: bool = False, **more: Any,
) -> Row:  # fmt: skip
    on = "many" if runs != "client" and name != "run" else "one" if elsewhere else "none"
    return Row(
        name, summary, auth, runs, handler, args,
        group="" if hidden else SHOWN,
        on="one" if name == "run" else on,  # type: ignore[arg-type]
        harmless=name in _HARMLESS,
        followed=name in ("watch", "journal"),
        writes=name == "submit",
        steps=name in ("run", "ask", "check"),
        examples=EXAMPLES.get(name, ()),
        **more,
    )  # fmt: skip


def pos(name: str, help: str, **more: Any) -> Arg:
    """A word at its place; required, where nothing else is said."""
    return Arg(name, help, position=True, **{"required": True, **more})


def flag(name: str, help: str, **more: Any) -> Arg:
    """Something that is said or not."""
    short = name[0] if name in ("follow", "detach", "yes", "all", "verbose") else ""
    return Arg(name, help, kind="flag", default=False, short=short, **more)


def opt(name: str, help: str, default: str | int = "", **more: Any) -> Arg:
    """A word behind its name; a number where the default is one."""
    kind: Kind = "int" if isinstance(default, int) else "text"
    return Arg(name, help, **{"kind": kind, "default": default, **more})


def words(name: str, help: str, **more: Any) -> Arg:
    """Something that may be given several times."""
    return Arg(name, help, kind="words", default="", **more)
