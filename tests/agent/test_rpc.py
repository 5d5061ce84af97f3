"""Messages out of whatever a program prints."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves

from muster.agent import rpc
from muster.agent.lines import VALUES_MAX, is_shallow
from muster.agent.rpc import Peer, RpcError, messages

ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}
RAW = json.dumps(ANSWER).encode()


@proves("agent.unknown-answers")
@pytest.mark.parametrize(
    "line",
    [
        RAW,
        RAW + b"\r",
        b"\xef\xbb\xbf" + RAW,
        b"\x1b]0;agent: ready\x07" + RAW,
        b"[INFO] {loading} " + RAW + b" done",
        b'{"level": "info"}' + RAW,
        b"[" + RAW + b"]",
        b"\xff\xfe" + RAW,
    ],
)
def test_a_message_is_found_between_other_things_on_its_line(line):
    assert list(messages(line)) == [ANSWER]


@proves("agent.unknown-answers")
@pytest.mark.parametrize(
    "line", [b"", b"Loading ...", b"{", b"{" * 10_000, b"[" * 100_000, b'{"level": "info"}', b"12",
             b'"x"', b"null", b'{"id": 1' + b"}" * 9, RAW.replace(b"1}", b'{"x":' * 100 + b"1}" + b"}" * 100)]
)  # fmt: skip
def test_a_line_without_a_message_gives_none(line):
    assert list(messages(line)) == []


@proves("agent.unknown-answers")
@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_line_raises(line):
    for message in messages(line):
        assert is_shallow(message)


class Wire:
    """A peer, and what it wrote; `say` is the program."""

    def __init__(self):
        self.reader = asyncio.StreamReader()
        self.wrote = []
        self.twice = asyncio.Event()
        self.notices = []
        self.peer = Peer(self.reader, self, self.answer, lambda *n: self.notices.append(n))
        self.listening = asyncio.create_task(self.peer.listen())

    async def answer(self, method, params):
        if method == "fails":
            return {"got": "\ud83d".encode()}
        return {"got": dict(params)} if method == "known" else None

    def write(self, raw):
        self.wrote.append(json.loads(raw))
        if len(self.wrote) == 2:
            self.twice.set()

    def is_closing(self):
        return False

    async def drain(self):
        pass

    def say(self, *lines):
        for line in lines:
            self.reader.feed_data(
                (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"
            )

    async def ask(self, *lines):
        asked = asyncio.create_task(self.peer.ask("do", {}))
        await asyncio.sleep(0)
        self.say(*lines)
        async with asyncio.timeout(5):
            return await asked


@proves("agent.unknown-answers")
@pytest.mark.parametrize(
    ("lines", "result"),
    [
        ([ANSWER], {"a": 1}),
        ([{**ANSWER, "id": "1"}], {"a": 1}),
        ([{"jsonrpc": "2.0", "id": 1}], None),
        ([{**ANSWER, "id": 77}, {**ANSWER, "id": None}, {**ANSWER, "id": {}}, ANSWER], {"a": 1}),
        ([ANSWER, {**ANSWER, "result": "again"}], {"a": 1}),
        ([b"noise", {"method": 5, "params": 5}, {"method": "n", "params": [1]}, ANSWER], {"a": 1}),
    ],
)
def test_an_answer_is_found_among_what_is_none(lines, result):
    async def go():
        return await Wire().ask(*lines)

    assert asyncio.run(go()) == result


@proves("agent.unknown-answers")
@pytest.mark.parametrize("error", [{"code": -1, "message": "no"}, "no", 5, {"code": "x"}, [1]])
def test_an_error_of_any_form_is_an_error(error):
    async def go():
        with pytest.raises(RpcError):
            await Wire().ask({"id": 1, "error": error})

    asyncio.run(go())


@proves("agent.unknown-answers")
def test_a_line_beyond_the_bound_is_skipped_and_not_kept(monkeypatch):
    monkeypatch.setattr(rpc, "MESSAGE_BYTES_MAX", 1000)

    async def go():
        huge = {"jsonrpc": "2.0", "id": 1, "result": "x" * 10_000}
        return await Wire().ask(huge, ANSWER)

    assert asyncio.run(go()) == {"a": 1}


@proves("agent.unknown-answers")
def test_whoever_waits_when_the_output_ends_is_told_and_so_is_whoever_asks_later():
    async def go():
        wire = Wire()
        asked = asyncio.create_task(wire.peer.ask("do", {}))
        await asyncio.sleep(0)
        wire.reader.feed_eof()
        for waiting in (asked, wire.peer.ask("more", {})):
            with pytest.raises(EOFError):
                await waiting

    asyncio.run(go())


@proves("agent.unknown-answers")
def test_a_request_is_answered_and_an_unknown_one_is_refused():
    async def go():
        wire = Wire()
        wire.say({"id": "a", "method": "known", "params": {"x": 1}})
        wire.say({"id": "b", "method": "fs/read_text_file", "params": None})
        async with asyncio.timeout(5):
            await wire.twice.wait()
        return wire.wrote

    first, second = asyncio.run(go())
    assert first == {"jsonrpc": "2.0", "id": "a", "result": {"got": {"x": 1}}}
    assert second["error"]["code"] == rpc.METHOD_NOT_FOUND


@proves("agent.unknown-answers")
def test_an_answer_without_a_line_end_counts_where_the_output_ends():
    async def go():
        wire = Wire()
        asked = asyncio.create_task(wire.peer.ask("do", {}))
        await asyncio.sleep(0)
        wire.reader.feed_data(RAW)
        wire.reader.feed_eof()
        async with asyncio.timeout(5):
            return await asked

    assert asyncio.run(go()) == {"a": 1}


@proves("agent.every-question-answered")
def test_a_request_on_which_our_side_fails_is_answered_and_so_is_the_next():
    async def go():
        wire = Wire()
        wire.say({"id": "a", "method": "fails"}, {"id": "b", "method": "known", "params": {}})
        async with asyncio.timeout(5):
            await wire.twice.wait()
        return {said["id"]: said for said in wire.wrote}

    said = asyncio.run(go())
    assert said["a"]["error"]["code"] == rpc.FAILED
    assert "UnicodeEncodeError" in said["a"]["error"]["message"]
    assert said["b"]["result"] == {"got": {}}


@proves("agent.bounded-output")
def test_a_message_of_too_many_values_is_none():
    many = b"[" + b"{}," * VALUES_MAX + RAW + b"]"
    assert list(messages(many)) == []
    source = json.dumps({**ANSWER, "result": ',[{"\\' * VALUES_MAX}).encode()
    assert len(list(messages(source))) == 1, "text is one value, whatever stands in it"
    assert list(messages(b'"",' * (4 * VALUES_MAX) + RAW)) == []
