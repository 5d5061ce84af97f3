"""A call to the daemon of this machine, over its socket.

Rule 1: nothing heavy is imported: `muster status` answers in less than 100 ms, the
interpreter's own start included.
Rule 2: what goes out is canonical JSON, because a statement is signed over its bytes.
Rule 3: an error of the daemon is raised here as the same kind of error, with its sentence.

docs/spec/calls.md is the normative text of calls and answers.
"""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from muster import errors
from muster.channel.frame import Type, decode, encode
from muster.channel.ipc_client import Client
from muster.errors import Malformed, MusterError, Unreachable
from muster.limits import CALL_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, SOCKET_PATH_BYTES_MAX

Args = Mapping[str, Any]

# A daemon answers at once or says that it waits; a minute of silence means that it hangs.
SILENCE_S: Final = 60.0
# What may rightly say nothing for long: a run that is followed, a message that waits for a link.
PATIENCE_S: Final = 30 * 24 * 3600.0
_CHANNEL: Final = 1


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
    from muster.node.home import Home  # noqa: PLC0415 - it costs a third of a quick command

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
    patient: bool = False,
    **fields: Any,
) -> Iterator[Any]:
    """The answers of a verb as they come, the last one last.

    `fields` are those of a call beside its arguments: on, options, statement, capability.
    """
    call = {"args": dict(args or {}), "verb": verb, **{k: v for k, v in fields.items() if v}}
    raw = canonical(call)
    if len(raw) > FRAME_PAYLOAD_BYTES_MAX:
        raise Malformed(
            f"{verb} with all its arguments is {len(raw)} bytes; at most "
            f"{FRAME_PAYLOAD_BYTES_MAX} fit into a call"
        )
    with _connect(path, PATIENCE_S if patient else SILENCE_S) as client:
        client.send(encode(Type.CALL, _CHANNEL, raw))
        parts = b""
        while True:
            frame = decode(client.receive())
            if frame.type is not Type.REPLY or frame.channel != _CHANNEL:
                continue
            mark, parts = frame.payload[:1], parts + frame.payload[1:]
            if mark == b"+":
                if len(parts) > CALL_BYTES_MAX:
                    raise Malformed(f"the answer to {verb} is longer than any answer can be")
                continue
            yield _value(verb, parts)
            if mark == b".":
                return
            parts = b""


def _connect(path: str, timeout_s: float) -> Client:
    """A link to the daemon. Raises: Unreachable without one, NotFound without a machine."""
    try:
        return Client(path, timeout_s)
    except Unreachable as error:
        from muster.node.home import Home  # noqa: PLC0415 - only where something is missing

        home = Home()
        if path == home.socket:
            home.require()
        if os.path.exists(path):
            # Its program died without tidying up; the next one clears it away.
            raise Unreachable(f"{error}; if it was killed, `muster up` starts it anew") from error
        raise Unreachable(
            f"no daemon runs here ({path} is not there); start it with `muster up --detach`"
        ) from error


def _value(verb: str, raw: bytes) -> Any:
    try:
        answer = json.loads(raw)
        if answer["ok"]:
            return answer["value"]
        error = answer["error"]
        kind, text, code = str(error["kind"]), str(error["text"]), int(error["exit"])
    except (ValueError, KeyError, TypeError) as bad:
        raise Malformed(
            f"the daemon's answer to {verb} cannot be read; restart it, it may be another version"
        ) from bad
    raise _error(kind, text, code)


def _error(kind: str, text: str, code: int) -> MusterError:
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, MusterError):
        return found(text)
    # A kind of its own (SpecErrors, Unproven): what counts for a script is the exit code.
    known = (errors.Denied, errors.Refused, errors.NotFound, errors.Conflict, Unreachable)
    base: type[MusterError] = next((c for c in known if c.exit_code == code), errors.Broken)
    return base(text)
