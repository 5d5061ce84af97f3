"""A command waits as long as its daemon lives, and no longer than it was told to."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from muster.channel.frame import LENGTH_BYTES, Type, decode, encode, prefixed, read_length
from muster.cli import call, context, parse
from muster.errors import Malformed, Silent, Unreachable
from tests.promise import proves

NOW = b'.{"ok":true,"value":1}'


class Slow:
    """Answers `facts` at once while it `lives`, and everything else when `released`."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        self.lives, self.asked, self.hangs = True, 0, False
        self.released = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(link,)))
            self._threads[-1].start()

    def _serve(self, link: socket.socket) -> None:
        with link:
            self._answer(link)

    def _answer(self, link: socket.socket) -> None:
        size, _ = read_length(link.recv(LENGTH_BYTES, socket.MSG_WAITALL))
        frame = decode(link.recv(size, socket.MSG_WAITALL))
        if b'"facts"' in frame.payload:
            self.asked += 1
            if self.hangs:
                self.released.wait(10)
            if not self.lives:
                return
        else:
            self.released.wait(10)
        with contextlib.suppress(OSError):
            link.sendall(prefixed(encode(Type.REPLY, frame.channel, NOW)))

    def close(self) -> None:
        self.released.set()
        # Only this wakes a thread that waits for the next link.
        self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._socket.close()


@pytest.fixture
def slow(tmp_path, monkeypatch):
    monkeypatch.setattr(call, "SILENCE_S", 0.05)
    monkeypatch.setattr(call, "ALIVE_S", 0.2)
    monkeypatch.setattr(call, "PROMPT_S", 0.05)
    found = Slow(tmp_path)
    yield found
    found.close()


@proves("cli.waits-for-work")
def test_an_answer_that_takes_long_is_waited_for_while_the_daemon_lives(slow):
    told = []

    def still() -> None:
        told.append(1)
        if len(told) == 3:
            slow.released.set()

    assert list(call.stream(slow.path, "repo", still=still)) == [1]
    assert (len(told) >= 3, slow.asked) == (True, len(told))


@proves("cli.waits-for-work")
def test_a_daemon_that_answers_nothing_any_more_is_given_up(slow):
    slow.lives = False
    with pytest.raises(Unreachable):
        list(call.stream(slow.path, "repo"))


@proves("cli.hung-daemon")
def test_a_read_gives_up_a_hung_daemon_soon_and_first_says_that_it_is_mute(slow, monkeypatch):
    monkeypatch.setattr(call, "QUICK_SILENCE_S", 0.05)
    monkeypatch.setattr(call, "QUICK_ALIVE_S", 0.3)
    monkeypatch.setattr(call, "SILENCE_S", 30.0)
    monkeypatch.setattr(call, "ALIVE_S", 30.0)
    monkeypatch.setenv("MUSTER_SOCK", slow.path)
    monkeypatch.delenv("MUSTER_HOME", raising=False)
    slow.hangs = True
    found, told = context.CommandContext(parse.parse(["status"])), []
    monkeypatch.setattr(found, "note", told.append)
    with pytest.raises(Silent, match="muster doctor"):
        found.run()
    assert told == ["the daemon does not answer yet"]


@proves("cli.waits-for-work")
def test_a_read_that_takes_long_is_waited_for_while_the_daemon_lives(slow, monkeypatch):
    monkeypatch.setattr(call, "QUICK_SILENCE_S", 0.05)
    monkeypatch.setattr(call, "SILENCE_S", 0.15)
    told, mute = [], []

    def still() -> None:
        told.append(1)
        slow.released.set()

    read = call.stream(slow.path, "find", still=still, mute=lambda: mute.append(1))
    assert list(read) == [1]
    assert (told, mute, slow.asked >= 3) == ([1], [], True)


@proves("cli.waits-for-work")
def test_who_gave_a_time_waits_no_longer(slow):
    with pytest.raises(Silent):
        list(call.stream(slow.path, "send", within_s=0.12))
    assert slow.asked <= 3


@proves("cli.waits-for-work")
def test_after_the_time_that_was_given_the_message_is_said_to_be_kept(slow, monkeypatch):
    monkeypatch.setenv("MUSTER_CAPABILITY", "muster-cap1.x")
    monkeypatch.setenv("MUSTER_SOCK", slow.path)
    monkeypatch.setattr(call, "SILENCE_S", 5.0)
    monkeypatch.delenv("MUSTER_HOME", raising=False)
    found = context.CommandContext(parse.parse(["send", "hub", "hi", "--wait", "--timeout", "1s"]))
    with pytest.raises(Silent, match="stays written down") as caught:
        found.run()
    assert caught.value.exit_code == Unreachable.exit_code


@proves("cli.waits-for-work")
@pytest.mark.parametrize("time", ["soon", "0s", "-1s", "1", "1x", "99999999d"])
def test_a_time_that_is_none_is_refused_before_anything_is_sent(time, monkeypatch):
    monkeypatch.setenv("MUSTER_SOCK", "/nowhere")
    found = context.CommandContext(
        parse.parse(["send", "hub", "hi", "--wait", f"--timeout={time}"])
    )
    with pytest.raises(Malformed, match="no time to wait"):
        found.run()


@proves("cli.waits-for-work")
def test_a_time_without_waiting_is_refused(monkeypatch):
    monkeypatch.setenv("MUSTER_SOCK", "/nowhere")
    with pytest.raises(Malformed, match="give both"):
        context.CommandContext(parse.parse(["send", "hub", "hi", "--timeout", "1s"])).run()


@proves("message.terms")
@pytest.mark.parametrize(
    ("options", "args", "within_s", "says"),
    [
        ({}, {"expires": "2h"}, None, ""),
        ({}, {"expires": "2h", "wait": True}, 7200, "it expired after 2h"),
        ({"timeout": "5m"}, {"expires": "2h", "wait": True}, 300, "not stored there within 300 s"),
        ({"timeout": "3h"}, {"expires": "2h", "wait": True}, 7200, "it expired after 2h"),
        ({"timeout": "5m"}, {"wait": True}, 300, "not stored there within 300 s"),
    ],
)
def test_nobody_waits_longer_for_a_message_than_it_counts(options, args, within_s, says):
    found_s, too_late = context._patience(args, options, None)
    assert found_s == within_s
    assert too_late.startswith(says)
