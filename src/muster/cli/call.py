"""A call to the daemon of this machine, over its socket.

Rule 1: nothing heavy is imported: `muster status` answers in less than 100 ms, the
interpreter's own start included.
Rule 2: what goes out is canonical JSON, because a statement is signed over its bytes.
Rule 3: an error of the daemon is raised here as the same kind of error, with its sentence.

docs/spec/calls.md is the normative text of calls and answers.
"""

import json
import os
import select
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from muster import errors
from muster.channel.frame import Type, decode, encode
from muster.channel.ipc_client import Client
from muster.errors import Broken, Malformed, MusterError, Silent, Unreachable
from muster.limits import CALL_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, SOCKET_PATH_BYTES_MAX

Args = Mapping[str, Any]

# After so much silence the daemon is asked whether it lives: while it does, it works on the answer.
SILENCE_S: Final = 20.0
ALIVE_S: Final = 20.0
# For a quick read: a person looks on, and nothing of it is lost where it is asked for again.
QUICK_SILENCE_S: Final = 2.0
QUICK_ALIVE_S: Final = 8.0
# A daemon that lives says so in this time, or whoever looks on is told.
PROMPT_S: Final = 0.5
CHANNEL: Final = 1


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value, as `log/canon.py` defines it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Malformed("an argument is not UTF-8 text; check the terminal's encoding") from error


def socket_path(home: str = "") -> str:
    """Where the daemon of this home listens; "" is the home of the environment."""
    sock = os.environ.get("MUSTER_SOCK")
    folder = home or os.environ.get("MUSTER_HOME", "")
    if not folder and sock:
        return sock
    if folder:
        # The usual case by hand: the module of homes costs a third of a quick command.
        path = os.path.join(os.path.abspath(folder), "run", "sock")
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            return path
    from muster.node.host.home import Home  # noqa: PLC0415 - it costs a third of a quick command

    return Home(home or None).socket


def ask(path: str, verb: str, args: Args | None = None, **more: Any) -> Any:
    """The one answer of a verb. Raises what the daemon raised; Unreachable without one."""
    return last(stream(path, verb, args, **more))


def last(answers: Iterator[Any]) -> Any:
    """The last of several answers, which is the only one of nearly every verb."""
    answer: Any = None
    for each in answers:
        answer = each
    return answer


def stream(
    path: str,
    verb: str,
    args: Args | None = None,
    *,
    within_s: float | None = None,
    still: Callable[[], None] = lambda: None,
    mute: Callable[[], None] | None = None,
    **fields: Any,
) -> Iterator[Any]:
    """The answers of a verb as they come, the last one last.

    However long it takes while the daemon lives: `still` is called each time that nothing came for
    a while. Raises Silent after `within_s`, and where the daemon does not answer at all any more:
    soon for a quick read, which is one that gives `mute`, called when no sign of life comes.
    `fields` are those of a call beside its arguments: on, options, statement, capability.
    """
    with begin(path, verb, args, **fields) as client:
        yield from answers(client, path, verb, within_s=within_s, still=still, mute=mute)


def begin(path: str, verb: str, args: Args | None = None, **fields: Any) -> Client:
    """The link over which a verb was called, before its first answer."""
    call = {"args": dict(args or {}), "verb": verb, **{k: v for k, v in fields.items() if v}}
    raw = canonical(call)
    if len(raw) > FRAME_PAYLOAD_BYTES_MAX:
        raise Malformed(
            f"{verb} with all its arguments is {len(raw)} bytes; at most "
            f"{FRAME_PAYLOAD_BYTES_MAX} fit into a call"
        )
    client = _connect(path, SILENCE_S)
    client.send(encode(Type.CALL, CHANNEL, raw))
    return client


def answers(
    client: Client,
    path: str,
    verb: str,
    *,
    within_s: float | None = None,
    still: Callable[[], None] = lambda: None,
    mute: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """The answers that come over a link on which `verb` was called; as `stream`."""
    end_ms, parts = 0.0, b""
    silence_s, alive_s = SILENCE_S, ALIVE_S
    if mute is not None:
        silence_s, alive_s = QUICK_SILENCE_S, QUICK_ALIVE_S
    if within_s is not None:
        from muster.node.host.clock import boot_ms  # noqa: PLC0415 - a quick command needs none

        end_ms = boot_ms() + within_s * 1000

    def following() -> bytes:
        """The next frame, as long as the daemon lives. Raises: Silent, Unreachable."""
        left_s, silent_s = silence_s, 0.0
        while within_s is None or (left_s := (end_ms - boot_ms()) / 1000) > 0:
            arrives, _, _ = select.select([client], [], [], min(silence_s, left_s))
            if arrives:
                return client.receive()
            if left_s >= silence_s:
                _require_life(path, alive_s, mute)
                silent_s += silence_s
                if silent_s >= SILENCE_S:
                    silent_s = 0.0
                    still()
        raise Silent("no answer in the time that was given")

    while True:
        frame = decode(following())
        if frame.type is not Type.REPLY or frame.channel != CHANNEL:
            continue
        mark, parts = frame.payload[:1], parts + frame.payload[1:]
        if mark == b"+":
            if len(parts) > CALL_BYTES_MAX:
                raise Malformed(f"the answer to {verb} is longer than any answer can be")
            continue
        yield value(verb, parts)
        if mark == b".":
            return
        parts = b""


def _require_life(path: str, alive_s: float, mute: Callable[[], None] | None) -> None:
    """Raises: Silent, Unreachable where the daemon answers nothing at all."""
    with _connect(path, alive_s) as other:
        facts = canonical({"args": {}, "verb": "facts"})
        other.send(encode(Type.CALL, CHANNEL, facts))
        if mute is not None and not select.select([other], [], [], PROMPT_S)[0]:
            mute()
        other.receive()


def _connect(path: str, timeout_s: float) -> Client:
    """A link to the daemon. Raises: Unreachable without one, NotFound without a machine."""
    try:
        return Client(path, timeout_s)
    except Unreachable as error:
        from muster.node.host.home import Home  # noqa: PLC0415 - only where something is missing

        home = Home()
        if path == home.socket:
            home.require()
        if os.path.exists(path):
            # Its program died without tidying up; the next one clears it away.
            raise Unreachable(
                f"the daemon has died: {path} is there, and nobody answers; start it anew with "
                "`muster up --detach`"
            ) from error
        raise Unreachable(
            f"no daemon runs here ({path} is not there); start it with `muster up --detach`"
        ) from error


def value(verb: str, raw: bytes) -> Any:
    """What an answer says. Raises: what the daemon raised, Malformed for what is none."""
    try:
        answer = json.loads(raw)
        if answer["ok"] is True:
            return answer["value"]
        error = answer["error"]
        kind, text, code = str(error["kind"]), str(error["text"]), int(error["exit"])
    except (ValueError, KeyError, TypeError) as bad:
        raise Malformed(
            f"the daemon's answer to {verb} cannot be read; restart it, it may be another version"
        ) from bad
    if text.startswith(f"there is no verb {verb!r} to call"):
        # It stands in our own table.
        raise Broken(
            f"the daemon that was asked knows no `{verb}`: it runs another version of Muster than "
            "this command; start it anew, with `muster down` and `muster up --detach`"
        )
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, MusterError):
        raise found(text)
    # A kind of its own (SpecErrors, Unproven): what counts for a script is the exit code.
    raise errors.of_exit(code)(text)
