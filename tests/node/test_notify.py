"""What an owner may write of telling people, and what stands in a message."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.promise import proves

from muster.errors import Broken
from muster.fleet.incident import Incident, Looked, Telling, gathered
from muster.log.entry import EntryId
from muster.log.stream import StreamName
from muster.node.host.config import Config, config_text, read_config
from muster.node.notify_child import _masked
from muster.node.services import page_text
from muster.task.fold import RunRow

MACHINE = "a" * 64
STREAM = StreamName.parse(f"{MACHINE}/{'0' * 32}/fleet")
WHOLE = """
[notify]
pagers = ["nas", "studio"]
quiet = "22:00-07:00"
zone = "Europe/Berlin"
digest = "09:30"
runs = "end"
[heartbeat]
url = "https://watch.example.org/a-token"
"""


def read(text: str) -> Config:
    return read_config(tomllib.loads(text), Path("config.toml"))


@proves("notify.settings")
def test_what_an_owner_writes_is_read_and_written_again_as_it_was():
    config = read(WHOLE)
    assert config.notify.pagers == ("nas", "studio")
    hours = config.notify.hours()
    assert (hours.quiet, hours.digest) == ((1320, 420), 570)
    # 28 November 2026 and 28 June 2026, noon UTC.
    assert hours.offset_ms(1_795_867_200_000) == 3_600_000
    assert hours.offset_ms(1_782_648_000_000) == 7_200_000
    again = read(config_text(config).decode())
    assert (again.notify, again.heartbeat) == (config.notify, config.heartbeat)
    assert read("").notify.hours().awake_ms(5) == 5
    assert abs(read("").notify.hours().offset_ms(0)) <= 14 * 3_600_000


@proves("notify.settings")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('notify.quiet = "22-7"', "`quiet`"),
        ('notify.quiet = "22:00-24:00"', "`quiet`"),
        ('notify.digest = "8"', "`digest`"),
        ('notify.zone = "Berlin"', "`zone`"),
        ('notify.zone = "../../etc/passwd"', "`zone`"),
        ('notify.pagers = ["../x"]', "`pagers`"),
        ('notify.pagers = ["a", "a"]', "twice"),
        ('notify.pagers = "nas"', "a list of texts"),
        ('notify.runs = "some"', '"end" or "failed" or "none"'),
        ('notify.phone = "ntfy://x"', "not a setting"),
        ('heartbeat.url = "file:///etc/passwd"', "no address of the web"),
        ('heartbeat.url = "https://a-token here"', "no address of the web"),
        ("heartbeat = 5", "must be a table"),
    ],
)
def test_what_is_of_no_use_is_named_by_its_setting(text, said):
    with pytest.raises(Broken) as broken:
        read(text)
    assert said in str(broken.value)
    assert "a-token" not in str(broken.value)


def incident(title: str, detail: str = "", key: str = "smoke", **more: Any) -> Incident:
    telling = Telling(
        machine=MACHINE, id="3fa1" * 16, key=key, open=more.pop("open", True), severity="critical",
        title=title, detail=detail, flaps=more.pop("flaps", 0), opened_ms=0, since_ms=0,
        t_ms=60_000, looked=Looked(),
    )  # fmt: skip
    return gathered([telling])[0]


def message(found: Incident, level: int = 1, task: str = "") -> page_text.Message:
    return page_text.of_incident(found, level, lambda machine: machine[:3], 3_600_000, task)


HOSTILE = (
    "smoke\nTo see all: muster revoke nas",
    "smoke\r\n\r\n<b>bold</b>",
    "@everyone @here <!channel> <@U123> <#C1> @alice:home.test",
    "[click](https://evil.test) https://evil.test `rm -rf /` *bold* _it_ ~no~ ||spoiler||",
    "smoke\u202egnihton\u2066\u200b\ufeff\x1b[31m\x00\x07",
    "\u201d\nmessage 00000000\n\u201c",
    "&lt;script&gt;",
    "see www.evil.test, WWW.evil.test/x",
    "x" * 100_000,
    "\u0301" * 5_000,
)


@proves("notify.no-forgery")
@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_words_begin_no_line_call_nobody_and_are_no_link(text):
    honest = message(incident("smoke", "detail")).lines
    made = [
        message(incident(text, text)), message(incident(text, text, open=False), 0),
        page_text.of_several([message(incident(text, text))] * 50, "things"),
        page_text.of_run(
            RunRow(STREAM, "ab" * 16, text, "failed", "", 0, 1, text, EntryId(b""), EntryId(b"x"),
                   ""),
            text, 1,
        ),
    ]  # fmt: skip
    for each in made:
        assert "\n" not in each.title
        assert len(each.title) <= 200
        assert len(each.body) < 4_000
        for line in (each.title, *each.body.split("\n")):
            assert not set(line) & set("@<>`[]*~|#&\r\x1b\x00\u202e\u2066\u200b\ufeff"), line
            assert "://" not in line
            assert "www." not in line.lower()
            # A name that is typed keeps its letters, and nothing is slanted by it.
            assert all(f"{a}_{b}".isidentifier() for a, b in re.findall("(.?)_(.?)", line)), line
            assert not line.startswith("incident ") or line.startswith("incident \u201c")
    assert "SECRET_NAME" in message(incident("set SECRET_NAME", "d")).body
    # As many lines as of an honest one, and each of ours is where it was.
    lines = made[0].body.split("\n")
    assert len(lines) == len(honest)
    assert lines[2:] == [*honest[2:]]
    assert all(line.startswith("\u201c") and line.endswith("\u201d") for line in lines[:2])
    assert lines[0].count("\u201c") == lines[0].count("\u201d") == 1


@proves("notify.message-names")
def test_a_message_names_what_it_is_about_and_what_to_type():
    task = "1ae7" * 8
    body = message(incident("smoke", flaps=3), task=task).body
    for said in (
        "critical, seen by aaa, for 60 min", "It was over 3 times",
        "incident \u201csmoke/aaa\u201d", f"task {task[:12]}: muster logs {task[:12]}",
        "muster incidents", "muster acknowledge smoke/aaa --until 8h",
    ):  # fmt: skip
        assert said in body, said
    # A key that a shell would read otherwise is not put into a command.
    for key in ("$(reboot)", "a;b", "-x", "disk:$HOME"):
        assert "muster acknowledge 3fa13fa13fa1 --until" in message(incident("x", key=key)).body
    # The same from every pager, and another one for every step.
    marks = [message(incident("smoke"), level).serial for level in (1, 1, 2, 0)]
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3


@proves("notify.address-hidden")
@pytest.mark.parametrize(
    ("url", "shown", "text", "hidden"),
    [
        ("json://u:pass-word@h.test/tok-en", "json://u:****@h.test/tok-en",
         "h.test: no pass-word at /tok-en", "h.test: no *** at /***"),
        ("slack://TokenAAAA/TokenBBBB/#room", "slack://T...A/T...B/#room",
         "TokenAAAA and TokenBBBB", "*** and ***"),
        ("mailto://u:p%40ss-word@h.test", "mailto://u:****@h.test", "p@ss-word", "***"),
        # However short, in whatever writing; and words of the language stay where they are whole.
        ("mailto://me:abc@h.test?key=x%2Fy", "mailto://me:****@h.test",
         "me: ABC, x/y x%2fy x%2Fy, abcd", "me: ***, *** *** ***, abcd"),
        ("json://h.test/tok%20en-1%2F2", "json://h.test/",
         "tok en-1/2 tok+en-1%2F2 TOK%20EN-1%2f2 tok%20en-1/2", "*** *** *** ***"),
        ("ntfy://topic-name", "ntfy://topic-name", "topic-name is closed", "topic-name is closed"),
    ],
)  # fmt: skip
def test_what_an_address_has_that_is_not_for_everybody_stands_in_no_reason(
    url, shown, text, hidden
):
    assert _masked(text, url, shown) == hidden
