"""`muster …`: the command line. Parse, call one verb, show its answer.

Rule 1: a command ends with an exit code that a script can trust: 0 it was done, 1 what was asked
about is not well, 2 the words make no sense, 3 and more as errors.py says, 130 after Ctrl-C.
Rule 2: an error is one sentence on standard error (JSON with --json), never a traceback.
Rule 3: what only some verbs need is imported by them: a start costs time on every call.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

from muster import __version__, umask
from muster.cli import parse
from muster.cli.text import abbreviated, safe
from muster.errors import MISTAKES, NO_ROOM, Broken, MusterError, unable

INTERRUPTED_EXIT: Final = 130
# 128 + SIGPIPE: what a shell reports for a program that nobody listened to.
PIPE_EXIT: Final = 141


def main(words: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    words = sys.argv[1:] if words is None else words
    sys.excepthook = _surprise
    _open_all()
    umask.narrow()
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a cron job that cannot show a letter gets a sign for it, and the rest.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    as_json = parse.wants_json(words)
    try:
        code = _run(words)
        sys.stdout.flush()
    except parse.Usage as error:
        return _fail("Usage", str(error), parse.USAGE_EXIT, as_json)
    except MusterError as error:
        return _fail(type(error).__name__, str(error), error.exit_code, as_json)
    except BrokenPipeError:
        # Else the interpreter complains while it flushes on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return PIPE_EXIT
    except OSError as error:
        found = _refusal_of_the_system(error)
        return _fail(type(found).__name__, str(found), found.exit_code, as_json)
    except MISTAKES as error:
        if os.environ.get("MUSTER_TRACEBACK"):
            raise
        return _fail("Broken", _mistake(error), Broken.exit_code, as_json)
    except KeyboardInterrupt:
        _say("")
        return INTERRUPTED_EXIT
    finally:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            # The interpreter ends with a code of its own where it cannot write what is left.
            try:
                stream.flush()
            except OSError:
                # The pipe is closed, as by `head`: what is still to be said goes nowhere.
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return code


def _open_all() -> None:
    """A closed standard stream becomes an empty one: else what is opened next is written to as it.

    The daemon's database would be the next, and `print` would end in a traceback.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is taken, and that is this one.
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115


def _run(typed: Sequence[str]) -> int:
    words = []
    for word in typed:
        # As it was typed, also where the locale could not read it.
        try:
            words.append(word if word.isascii() else os.fsencode(word).decode())
        except UnicodeError:
            raise parse.Usage(f"{safe(word[:60])!r} is no UTF-8 text: type it again") from None
    try:
        command = parse.parse(words)
    except parse.Shown as shown:
        from muster.cli import pager  # noqa: PLC0415 - not for what a daemon answers

        pager.put(str(shown), paged="--no-pager" not in words)
        return 0
    if command.home:
        # It counts for everything this command starts; another home's socket must not answer.
        os.environ["MUSTER_HOME"] = os.path.abspath(command.home)
        os.environ.pop("MUSTER_SOCK", None)
    for name in ("MUSTER_HOME", "MUSTER_STATE"):
        if folder := os.environ.get(name):
            # From where it was typed: a daemon in the background stands in another folder.
            os.environ[name] = os.path.abspath(folder)
    from muster.cli import context  # noqa: PLC0415 - not for --help and --version

    made = context.CommandContext(command)
    if command.plan or made.many:
        from muster.cli import several  # noqa: PLC0415 - few commands ask many machines

        if command.plan:
            return several.plan(made)
        made.confirm()
        if several.goes_on(command):
            from muster.cli import streams  # noqa: PLC0415 - as above

            return streams.follow(made)
        return several.everywhere(made)
    made.confirm()
    if command.watch and not command.verb.steps:
        from muster.cli import watch  # noqa: PLC0415 - few commands go on

        return watch.watch(made)
    if command.verb.steps:
        from muster.cli import steps  # noqa: PLC0415 - few verbs have several

        led: int = getattr(steps, command.verb.name)(made)
        return led
    return made.run()


def _fail(kind: str, text: str, code: int, as_json: bool) -> int:
    if as_json:
        answer: dict[str, Any] = {"error": {"exit": code, "kind": kind, "text": text}}
        _say(json.dumps(answer))
    else:
        # A refusal may quote what a machine or a file said.
        _say(f"muster: {safe(abbreviated(text))}")
    return code


def _say(text: str) -> None:
    """A line on standard error; what cannot be said changes no exit code."""
    # Nobody hears it; the exit code says the same.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _refusal_of_the_system(error: OSError) -> MusterError:
    """What a file or the system said no to, and the way out where we know one."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    text = f"the operating system says: {error.strerror or error}{f' ({name})' if name else ''}"
    if error.errno in NO_ROOM:
        text += "; free some space, and give the same command again"
    if not name or not isinstance(error, PermissionError):
        return unable(text, error)
    from muster.node.host.owner import whose  # noqa: PLC0415 - only for a mistake

    return unable(f"{text}; {whose(name)}".removesuffix("; "), error)


def _mistake(error: BaseException) -> str:
    """An error that nobody foresaw; between two versions it is nobody's."""
    from muster.cli import call  # noqa: PLC0415 - only for a mistake

    other, facts = "", None
    # Only for a hint: without a daemon, or with a hanging one, there is none.
    with contextlib.suppress(MusterError, OSError):
        facts = call.ask(call.socket_path(), "facts", within_s=5)
    if isinstance(facts, dict):
        other = str(facts.get("muster", ""))
    if other not in ("", __version__):
        return (
            f"the daemon runs Muster {other} and this command is {__version__}: start the daemon "
            "anew, with `muster down` and `muster up --detach`"
        )
    return (
        f"that is our mistake, not yours ({type(error).__name__}: {error}); "
        "MUSTER_TRACEBACK=1 shows where, please report it"
    )


def _surprise(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error that nobody foresaw: our mistake, said in one sentence."""
    if os.environ.get("MUSTER_TRACEBACK"):
        sys.__excepthook__(kind, error, trace)
        return
    _say(safe(f"muster: {_mistake(error)}"))


if __name__ == "__main__":
    sys.exit(main())
