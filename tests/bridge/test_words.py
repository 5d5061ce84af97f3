"""What a post may hold, and what the lines between a daemon and a bridge may."""

import asyncio
import json

import pytest
from tests.promise import proves

from muster.bridge.base import Passed, Post
from muster.bridge.process import Process
from muster.bridge.services import SERVICES, load
from muster.bridge.wire import LINE_BYTES_MAX, Durable, Ends, Show, line, read_order, read_word
from muster.bridge.words import cut, plain
from muster.errors import Broken, Malformed

ROWS = (
    ("plain words.\nTwo lines", "plain words.\nTwo lines"),
    ("@everyone and @here", "＠everyone and ＠here"),
    ("a@b.example", "a＠b.example"),
    ("at @ noon", "at @ noon"),
    ("<!channel> <@U1> <#C1> </cmd:1> <b>", "‹!channel> ‹＠U1> ‹#C1> ‹/cmd:1> ‹b>"),
    ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
    ("\u202egnp.exe", "[U+202E]gnp.exe"),
    ("a\u2066b\u2069", "a[U+2066]b[U+2069]"),
    ("zero\u200bwidth\ufeff", "zero[U+200B]width[U+FEFF]"),
    ("\x1b[31mred\x07\x00", "[U+001B][31mred[U+0007][U+0000]"),
    ("tab\tand\r\nline\rend", "tab and\nline[U+000D]end"),
    ("https://evil.example", "https꞉//evil.example"),
    ("javascript://x", "javascript꞉//x"),
    ("z\u0335\u0335\u0335\u0335\u0335\u0335\u0335", "z\u0335\u0335\u0335\u0335"),
    ("👩\u200d💻 ✔\ufe0f", "👩💻 ✔"),
    ("tag\U000e0041", "tag[U+E0041]"),
    ("\u3164blank", "[U+3164]blank"),
    ("lone \ud800", "lone [U+D800]"),
)


@proves("chat.words")
def test_words_are_read_as_they_are_and_do_nothing():
    for text, wanted in ROWS:
        assert plain(text, 1_000) == wanted, ascii(text)
        assert plain(wanted, 1_000) == wanted, "what is plain stays so"


@proves("chat.words")
def test_what_is_too_long_is_cut_in_its_middle_with_a_mark():
    long = "begin " + "x" * 9_990 + " end"
    for most in (4_096, 2_000, 200, 80):
        for work in (plain, cut):
            found = work(long, most)
            assert len(found) <= most
            assert found.startswith("begin")
            assert "left out here" in found
            assert found.endswith(" end")
    assert cut("short", 5) == "short"
    assert len(cut("x" * 100, 10)) <= 10


@proves("chat.process")
def test_a_line_between_daemon_and_bridge_is_bounded_and_known():
    with pytest.raises(Malformed, match="at most"):
        line(Show(1, "k", Post("r", "x" * LINE_BYTES_MAX)))
    for raw in (b"", b"{", b"[]", b'{"type":"sing"}', b'{"type":"durable"}', b"[" * 100_000):
        for read in (read_order, read_word):
            with pytest.raises(Malformed):
                read(raw)
    assert read_order(line(Durable(7))) == Durable(7)
    assert Passed()


@proves("chat.process")
@pytest.mark.parametrize(
    ("begin", "says"),
    [
        (b'{"type":"durable","number":1}\n', "not `begin`"),
        (b"garbage\n", "none that either knows"),
        (b'{"type":"begin","service":"fax","token":"t","options":{}}\n', "no chat service"),
    ],
)
def test_a_bridge_that_cannot_begin_says_why_and_ends(begin, says):
    said: list[bytes] = []

    async def run() -> int:
        lines = iter([begin, b""])

        async def next_line() -> bytes:
            return next(lines)

        return await Process(next_line, said.append).live()

    assert asyncio.run(run()) != 0
    (ends,) = map(read_word, said)
    assert isinstance(ends, Ends)
    assert says in ends.why
    assert json.loads(said[0])["type"] == "ends"


@proves("chat.process")
def test_a_client_that_is_not_installed_is_named_with_what_brings_it(monkeypatch):
    gone = SERVICES["matrix"]._replace(module="muster.bridge.nothing_so")
    monkeypatch.setitem(SERVICES, "matrix", gone)
    with pytest.raises(Broken, match=r"matrix needs .*, which is not installed"):
        load("matrix")
