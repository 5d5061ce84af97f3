"""The call: what goes over the socket, and what comes back. No daemon, a socket that speaks."""

import contextlib
import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.channel.frame import LENGTH_BYTES, Type, decode, encode, prefixed, read_length
from muster.cli import call
from muster.errors import Broken, Conflict, Denied, Malformed, NotFound, Unreachable
from muster.limits import CALL_BYTES_MAX, REPLY_PART_BYTES
from muster.log import canon
from tests.promise import proves

SAFE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcxyz_", max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


class Daemon:
    """Accepts one link, keeps the call, sends these payloads."""

    def __init__(self, path, *payloads, hang_up=True):
        self.path, self.asked = str(path), None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._payloads, self._hang_up = payloads, hang_up
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        link, _ = self._socket.accept()
        with link, self._socket:
            size, _ = read_length(link.recv(LENGTH_BYTES, socket.MSG_WAITALL))
            frame = decode(link.recv(size, socket.MSG_WAITALL))
            assert frame.type is Type.CALL
            self.asked = canon.decode(frame.payload, "call", size_max=CALL_BYTES_MAX)
            # Whoever heard enough hangs up, and the rest of the answer goes nowhere.
            with contextlib.suppress(ConnectionError):
                for payload in self._payloads:
                    link.sendall(prefixed(encode(Type.REPLY, frame.channel, payload)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._thread.join(10)


def answer(value, mark=b"."):
    return mark + json.dumps({"ok": True, "value": value}).encode()


def failure(kind, text, code):
    error = {"exit": code, "kind": kind, "text": text}
    return b"." + json.dumps({"ok": False, "error": error}).encode()


@proves("cli.call-canonical")
@given(SAFE)
def test_the_command_writes_json_exactly_as_the_log_does(value):
    assert call.canonical(value) == canon.encode(value)


@proves("cli.call-canonical")
def test_text_that_is_no_unicode_is_refused_before_anything_is_sent(tmp_path):
    with pytest.raises(Malformed, match="UTF-8"):
        call.ask(str(tmp_path / "nobody"), "send", {"text": "\udcff"})


@proves("cli.call")
def test_a_call_names_its_verb_its_arguments_and_nothing_that_is_empty(tmp_path):
    with Daemon(tmp_path / "s", answer([1, 2])) as daemon:
        found = call.ask(daemon.path, "tasks", {"all": True}, on="", statement="s", options={})
    assert found == [1, 2]
    assert daemon.asked == {"args": {"all": True}, "statement": "s", "verb": "tasks"}


@proves("cli.call")
def test_a_long_answer_in_parts_is_put_together(tmp_path):
    raw = answer("ä" * REPLY_PART_BYTES)[1:]
    parts = [raw[at : at + REPLY_PART_BYTES] for at in range(0, len(raw), REPLY_PART_BYTES)]
    payloads = [b"+" + part for part in parts[:-1]] + [b"." + parts[-1]]
    with Daemon(tmp_path / "s", *payloads) as daemon:
        assert call.ask(daemon.path, "logs") == "ä" * REPLY_PART_BYTES


@proves("cli.call")
def test_several_answers_come_one_by_one(tmp_path):
    with Daemon(tmp_path / "s", answer(1, b"*"), answer(2, b"*"), answer(3)) as daemon:
        assert list(call.stream(daemon.path, "watch")) == [1, 2, 3]


@proves("cli.call-errors")
@pytest.mark.parametrize(
    ("kind", "code", "raised"),
    [
        ("Denied", 4, Denied),
        ("NotFound", 5, NotFound),
        ("Conflict", 6, Conflict),
        ("Unproven", 4, Denied),
        ("Exception", 8, Broken),
    ],
)
def test_an_error_of_the_daemon_keeps_its_sentence_and_its_exit_code(tmp_path, kind, code, raised):
    with (
        Daemon(tmp_path / "s", failure(kind, "because of that", code)) as daemon,
        pytest.raises(raised, match="because of that") as error,
    ):
        call.ask(daemon.path, "run")
    assert error.value.exit_code == code


@proves("cli.call-errors")
@pytest.mark.parametrize("payload", [b".nonsense", b".[]", b'.{"ok":false}', b'.{"value":1}', b"."])
def test_an_answer_that_cannot_be_read_is_said_to_be_so(tmp_path, payload):
    with Daemon(tmp_path / "s", payload) as daemon, pytest.raises(Malformed, match="restart it"):
        call.ask(daemon.path, "status")


@proves("cli.call-errors")
def test_a_daemon_that_hangs_up_is_unreachable_and_so_is_none(tmp_path):
    with Daemon(tmp_path / "s") as daemon, pytest.raises(Unreachable):
        call.ask(daemon.path, "status")
    with pytest.raises(Unreachable):
        call.ask(str(tmp_path / "nobody"), "status")


@proves("cli.call-errors")
def test_an_answer_without_end_is_cut_off(tmp_path):
    part = b"+" + b"x" * REPLY_PART_BYTES
    many = [part] * (CALL_BYTES_MAX // REPLY_PART_BYTES + 2)
    with Daemon(tmp_path / "s", *many) as daemon, pytest.raises(Malformed, match="longer"):
        call.ask(daemon.path, "status")


@proves("cli.socket")
def test_the_socket_of_a_home_is_the_one_that_its_daemon_uses(tmp_path, monkeypatch):
    from muster.node.host.home import Home

    monkeypatch.delenv("MUSTER_SOCK", raising=False)
    deep = tmp_path / ("d" * 120)
    for home in (tmp_path / "home", deep):
        monkeypatch.setenv("MUSTER_HOME", str(home))
        assert call.socket_path() == Home().socket == call.socket_path(str(home))
    monkeypatch.delenv("MUSTER_HOME")
    monkeypatch.setenv("MUSTER_SOCK", "/run/agent")
    assert call.socket_path() == "/run/agent"
    assert call.socket_path(str(deep)) == Home(deep).socket


@proves("cli.calls-documented")
def test_the_page_about_calls_names_every_field_need_and_exit_code():
    from pathlib import Path
    from typing import get_args

    import msgspec

    from muster import errors
    from muster.node.call.answers import Request
    from muster.node.verb import Auth

    text = (Path(__file__).parents[2] / "docs" / "spec" / "calls.md").read_text()
    for field in msgspec.structs.fields(Request):
        assert f"| `{field.name}` |" in text
    for auth in get_args(Auth):
        assert f"| `{auth}` |" in text
    for name, found in vars(errors).items():
        if (
            isinstance(found, type)
            and issubclass(found, errors.MusterError)
            and found is not (errors.MusterError)
        ):
            row = next((line for line in text.splitlines() if f"`{name}`" in line), name)
            assert row.startswith(f"| {found.exit_code} ")
