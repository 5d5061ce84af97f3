"""What Slack says beside what every service does: envelopes, histories, and whose word it is."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, Self

import pytest
from aiohttp import web
from tests.bridge.desk import NO, YES
from tests.bridge.slacks import BOT, TEAM, Slacks
from tests.promise import proves

from muster.bridge.base import HEARD_CHARS_MAX, Button, Passed, Post, Pressed, Said, Slow
from muster.bridge.slack_payload import Message, Own, Press, as_, content, pressed, said
from muster.errors import Denied, Malformed, Unreachable

pytest.importorskip("slack_sdk")

from muster.bridge import slack

OWN = Own(BOT, TEAM)
TS = "1700000000.000001"


class Ear:
    """One bridge, and what it hears; nothing is durable while `keeps` is not set."""

    def __init__(self, desk: Slacks, cursor: str = "") -> None:
        self.desk, self.cursor = desk, cursor
        self.heard, self.odd = list[Any](), list[str]()
        self.keeps = asyncio.Event()
        self.keeps.set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        options = {"url": self.desk.url, "room": self.desk.room, **self.desk.options}
        self.bridge = slack.Slack(self.desk.token, options)
        self.task = asyncio.ensure_future(self._run(self.cursor))
        self.task.add_done_callback(lambda _: self._changed.set())
        self.cursor = ""
        try:
            await self.until(lambda: self.cursor)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _run(self, cursor: str) -> None:
        await self.bridge.begin()
        await self.bridge.run(cursor, self._hear)

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.bridge.close()

    async def _hear(self, heard: Any, cursor: str = "") -> None:
        if isinstance(heard, Passed):
            self.odd.extend([heard.odd] if heard.odd else [])
        else:
            self.heard.append(heard)
        self._changed.set()
        await self.keeps.wait()
        assert not cursor or cursor >= self.cursor, "it is not taken back"
        self.cursor = cursor or self.cursor
        self._changed.set()

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(20):
            while not holds():
                if self.task.done():
                    self.task.result()
                self._changed.clear()
                await self._changed.wait()

    def texts(self) -> list[str]:
        return [each.text for each in self.heard if isinstance(each, Said)]


def run(story: Any) -> None:
    """With a service of its own."""

    async def told() -> None:
        desk = Slacks()
        await desk.open()
        try:
            await story(desk)
        finally:
            await desk.close()

    asyncio.run(told())


# --- whose word it is ----------------------------------------------------------------------------

WORD = {"type": "message", "ts": TS, "user": "U1", "text": "a &lt;b&gt; &amp;amp;", "team": TEAM}
NOBODYS = (
    {"bot_id": "B1"}, {"subtype": "bot_message"}, {"subtype": "message_changed"},
    {"subtype": "message_deleted"}, {"subtype": "channel_join"}, {"hidden": True}, {"user": BOT},
    {"user": "USLACKBOT"}, {"user": None}, {"edited": {"user": "U1"}}, {"team": "T0OTHER"},
    {"user_team": "T0OTHER"}, {"source_team": "T0OTHER"}, {"team": None, "user_team": "T0OTHER"},
)  # fmt: skip
ODD = (
    {"ts": 1}, {"ts": "1.1"}, {"ts": None}, {"ts": f"{TS}\n"}, {"ts": "9" * 500}, {"user": 5},
    {"user": ["U1"]}, {"user": "alice"}, {"user": "U1\n"}, {"text": {}}, {"text": 5},
    {"subtype": []}, {"thread_ts": "x"}, {"latest_reply": 1}, {"bot_id": 1}, {"team": {}},
    {"hidden": "yes"}, {"edited": "now"}, {"edited": []},
)  # fmt: skip


@proves("chat.contract")
def test_who_speaks_in_slack_is_a_person_of_the_workspace_and_nobody_else():
    found = said(as_(WORD, Message), "C1", OWN, private=False)
    assert found == Said(f"C1/{TS}", TEAM, "U1", "C1", False, "a <b> &amp;")
    for more in ({"subtype": "file_share"}, {"thread_ts": TS}, {"team": None}):
        assert said(as_({**WORD, **more}, Message), "C1", OWN, private=True), more
    long = said(as_({**WORD, "text": "x" * 40_000}, Message), "C1", OWN, private=False)
    assert len(long.text) == HEARD_CHARS_MAX
    below = said(as_({**WORD, "thread_ts": "1600000000.000001"}, Message), "C1", OWN, private=True)
    assert (below.thread, below.private) == ("C1/1600000000.000001", True)
    for more in NOBODYS:
        assert said(as_({**WORD, **more}, Message), "C1", OWN, private=True) is None, more
    for more in ODD:
        with pytest.raises(Malformed):
            said(as_({**WORD, **more}, Message), "C1", OWN, private=True)


PRESS = {
    "type": "block_actions", "user": {"id": "U1", "team_id": TEAM},
    "container": {"type": "message", "channel_id": "C1", "message_ts": TS},
    "actions": [{"type": "button", "action_ts": "1700000001.000000", "value": "y1"}],
}  # fmt: skip
USER, CONTAINER, (ACTION,) = PRESS["user"], PRESS["container"], PRESS["actions"]
ODD_PRESSES = (
    {"user": None}, {"user": "U1"}, {"user": {"id": "U1"}}, {"user": {**USER, "id": 1}},
    {"user": {**USER, "team_id": "T0OTHER"}}, {"user": {**USER, "team_id": None}},
    {"container": {}}, {"container": {**CONTAINER, "channel_id": "../x"}}, {"actions": {}},
    {"container": {**CONTAINER, "message_ts": 5}}, {"actions": ["y1"]},
    {"actions": [{**ACTION, "value": 1}]}, {"actions": [{**ACTION, "action_ts": "now"}]},
)  # fmt: skip


@proves("chat.contract")
def test_a_press_in_slack_is_one_button_of_one_post_by_a_person_of_the_workspace():
    (found,) = pressed(as_(PRESS, Press), OWN)
    id_ = f"C1/{TS}/U1/1700000001.000000"
    assert found == Pressed(id_, TEAM, "U1", "C1", f"C1/{TS}", "y1")
    for action in ({**ACTION, "value": None}, {**ACTION, "type": "static_select"}):
        assert pressed(as_({**PRESS, "actions": [action]}, Press), OWN) == []
    for more in ODD_PRESSES:
        with pytest.raises(Malformed):
            pressed(as_({**PRESS, **more}, Press), OWN)


@proves("chat.words")
def test_a_post_to_slack_is_plain_escaped_text_in_blocks_that_are_taken():
    button = Button("y1", "<!channel> " + "x" * 90, "✅")
    for text in ("a <b> & &amp; *c* :d:", "&" * 9_000, "👩" * 9_000, "a\nb"):
        found = content(Post("C1", text, (button,)))
        *sections, keys = found["blocks"]
        assert {each["type"] for each in sections} == {"section"}
        texts = [each["text"] for each in (*sections, *keys["elements"])]
        assert all(not set("<>") & set(each["text"]) for each in texts)
        assert max(len(each["text"].encode("utf-16-le")) // 2 for each in texts) <= 3_000
        assert len(sections) < 50
        assert len(keys["elements"][0]["text"]["text"]) <= 75
    assert content(Post("C1", "1 < 2 & 3"))["blocks"][0]["text"]["text"] == "1 &lt; 2 &amp; 3"


# --- how it fails --------------------------------------------------------------------------------

REFUSALS = (
    (200, {"error": "invalid_auth"}, Denied, "the bot token: invalid_auth"),
    (200, {"error": "missing_scope", "needed": "im:history"}, Denied, "the scope im:history"),
    (200, {"error": "channel_not_found"}, Malformed, "refuses it: channel_not_found"),
    (200, {"error": "<b>\x1b[31m"}, Unreachable, "answers with 200"),
    (200, {"error": ["invalid_auth"]}, Unreachable, "answers with 200"),
    (200, {"error": "internal_error"}, Unreachable, "internal_error"),
    (200, {"error": "ratelimited"}, Slow, "wait for 7 s"),
    (429, None, Slow, "wait for 7 s"), (503, "<html>", Unreachable, "answers with 503"),
    (200, ["x"], Unreachable, "answers with 200"),
)  # fmt: skip


@proves("chat.contract")
def test_each_refusal_of_slack_is_the_failure_that_it_is():
    for status, data, kind, says in REFUSALS:
        answer = SimpleNamespace(status_code=status, data=data, headers={"Retry-After": "7"})
        found = slack._refusal(answer, "bot")
        assert type(found) is kind, data
        assert says in str(found)
    for wait, wait_s in (("", 30.0), ("0", 0.1), ("soon", 30.0), ("9" * 50, 30.0)):
        answer = SimpleNamespace(status=429, headers={"Retry-After": wait})
        assert slack._refusal(answer, "bot").wait_s == wait_s


@proves("chat.contract")
def test_what_slack_answers_and_its_client_cannot_read_ends_nothing_but_the_call():
    async def story(desk: Slacks) -> None:
        async with Ear(desk) as ear:
            for body, kind in (
                ("[]", Unreachable), ("{", Unreachable), ("5", Unreachable), ("null", Unreachable),
                ('{"ok":true}', Malformed), ('{"ok":true,"channel":5,"ts":"x"}', Malformed),
            ):  # fmt: skip
                answer = web.Response(text=body, content_type="application/json")
                desk.once["chat.postMessage"] = [answer]
                with pytest.raises(kind):
                    await ear.bridge.post(Post(desk.room, "x"), "k")
            for answer in (web.Response(text="gone", status=502), None):
                desk.once["chat.postMessage"] = [answer]
                asked = desk.asked.count("chat.postMessage")
                with pytest.raises(Unreachable):
                    await ear.bridge.post(Post(desk.room, "x"), "k")
                # Whether it was posted nobody knows: once is enough.
                assert desk.asked.count("chat.postMessage") == asked + 1
            for ref in ("", "C0ROOM", "C0ROOM/1", f"C0ROOM/{TS}/", f"c/{TS}"):
                with pytest.raises(Malformed):
                    await ear.bridge.edit(ref, Post(desk.room, "x"), "k")
            await desk.say("alice", "on it goes")
            await ear.until(lambda: ear.texts() == ["on it goes"])

    run(story)


@proves("chat.contract")
def test_a_connection_that_breaks_or_is_not_greeted_ends_the_bridge_as_does_a_token_taken_back(
    monkeypatch,
):
    monkeypatch.setattr(slack, "_WATCH_S", 0.3)

    async def story(desk: Slacks) -> None:
        async with Ear(desk) as ear:
            desk.sockets.pop()._req.transport.abort()
            with pytest.raises(Unreachable, match="broke"):
                await asyncio.wait_for(ear.task, 20)
        async with Ear(desk) as ear:
            await desk.sockets.pop().close()
            with pytest.raises(Unreachable, match="closed"):
                await asyncio.wait_for(ear.task, 20)
        desk.greets = False
        with pytest.raises(Unreachable, match="broke"):
            async with Ear(desk):
                pass
        desk.greets = True
        async with Ear(desk) as ear:
            desk._revoked = True
            await desk.sockets[-1].close()
            with pytest.raises(Denied):
                await asyncio.wait_for(ear.task, 20)

    run(story)


@proves("chat.contract")
def test_a_connection_that_does_not_open_ends_the_bridge_and_its_address_is_told_nobody(
    monkeypatch, caplog, capfd
):
    monkeypatch.setattr(slack, "_CONNECT_S", 0.2)
    caplog.set_level(logging.DEBUG)

    async def story(desk: Slacks) -> None:
        opened = {"ok": True, "url": f"ws://127.0.0.1:{desk._port}/none/ticket-7"}
        desk.once["apps.connections.open"] = [opened]
        with pytest.raises(Unreachable, match="opens no connection"):
            async with Ear(desk):
                pass

    run(story)
    assert "ticket-7" not in caplog.text + "".join(capfd.readouterr())


# --- envelopes -----------------------------------------------------------------------------------


@proves("chat.contract")
def test_an_envelope_is_acknowledged_once_it_is_durable_and_sent_again_it_is_heard_once(
    monkeypatch,
):
    monkeypatch.setattr(slack, "_DONE_MAX", 3)

    async def story(desk: Slacks) -> None:
        async with Ear(desk) as ear:
            ear.keeps.clear()
            await desk.say("alice", "one")
            await ear.until(lambda: ear.texts() == ["one"])
            (envelope,) = desk.pending.values()
            # Slack waits for three seconds, and says it again.
            await desk.send("events_api", envelope["payload"], retry_attempt=1)
            await desk.say("alice", "two")
            for _ in range(3):
                await ear.bridge.post(Post(desk.room, "nobody waits for what is heard"), "k")
            assert envelope["envelope_id"] in desk.pending
            ear.keeps.set()
            await desk.until(lambda: not desk.pending)
            assert ear.texts() == ["one", "two"]
            ref = await ear.bridge.post(Post(desk.room, "well?", (YES, NO)), "k")
            await desk.press("alice", ref, NO)
            await desk.press("alice", ref, NO)
            await ear.until(lambda: len(ear.heard) == 4)
            assert len({each.id for each in ear.heard}) == 4
            assert len(ear.bridge._done) == 3
            # The connection that it came over is none any more when it is durable.
            ear.keeps.clear()
            await desk.say("alice", "three")
            await ear.until(lambda: len(ear.heard) == 5)
            await desk.refresh()
            ear.keeps.set()
            await desk.until(lambda: desk.sockets and not desk.pending)
            assert len(ear.heard) == 5

    run(story)


@proves("chat.contract")
def test_no_envelope_of_slack_ends_a_bridge_and_each_is_acknowledged():
    async def story(desk: Slacks) -> None:
        async with Ear(desk) as ear:
            for payload in (None, 5, "x", [], {}, {"event": None}, {"event": {"type": "message"}}):
                await desk.send("events_api", payload)
            for more in (
                *ODD,
                *NOBODYS,
                {"channel": 5},
                {"channel": None},
                {"channel": "#general"},
            ):
                await desk.tell({**WORD, "channel": desk.room, "channel_type": "channel", **more})
            for more in ODD_PRESSES:
                await desk.send("interactive", {**PRESS, **more})
            for kind, payload in (("interactive", {"type": "view_submission"}), ("slash", {})):
                await desk.send(kind, payload)
            for raw in (
                "{", "[]", "5", "{}", '{"type":5}', '{"type":[]}', '{"envelope_id":7}', "x" * 9_000,
                '{"type":"closed"}', '{"type":"closed","made":9}', "[" * 50_000,
                '{"envelope_id":"e","type":{},"payload":{"event":{"type":"message"}}}',
                '{"a":' * 50_000,
            ):  # fmt: skip
                await desk.raw(raw)
            await desk.say("alice", "what all came for")
            await ear.until(ear.texts)
            assert ear.texts() == ["what all came for"]
            assert [type(each) for each in ear.heard] == [Said]
            assert len(ear.odd) > len(ODD) + len(ODD_PRESSES)
            await desk.until(lambda: not desk.pending)

    run(story)


@proves("chat.contract")
def test_a_fresh_connection_is_opened_where_slack_asks_and_what_was_said_meanwhile_is_fetched():
    async def story(desk: Slacks) -> None:
        async with Ear(desk) as ear:
            for number in range(4):
                await desk.say("alice", f"live {number}")
                slow = web.json_response({}, status=429, headers={"Retry-After": "0"})
                desk.once["apps.connections.open"] = [slow]
                await desk.refresh()
                # Nobody listens to these.
                await desk.say("alice", f"missed {number}")
                await desk.say("bob", f"private {number}", private=True)
                await desk.until(lambda: desk.sockets)
            await ear.until(lambda: len(ear.heard) >= 12)
            texts = [text for text in ear.texts() if not text.startswith("private")]
            assert texts == [f"{kind} {n}" for n in range(4) for kind in ("live", "missed")]
            private = [each for each in ear.heard if each.private]
            assert [each.text for each in private] == [f"private {n}" for n in range(4)]
            assert len({each.id for each in ear.heard}) == 12
            asked = desk.asked.count("apps.connections.open")
            assert asked == 1 + 2 * 4

    run(story)


# --- what was missed -----------------------------------------------------------------------------


@proves("chat.contract")
def test_what_was_missed_is_read_with_its_threads_and_without_what_is_nobodys():
    async def story(desk: Slacks) -> None:
        old = await desk.say("alice", "from before it began")
        async with Ear(desk) as ear:
            root = await desk.say("alice", "root")
            quiet = await desk.say("alice", "a quiet thread")
            early = await desk.say("alice", "answered early", thread_ts=quiet)
            await ear.until(lambda: ear.cursor == early)
            assert len(ear.heard) == 3
            cursor = ear.cursor
        for number in range(20):
            await desk.say("alice", f"m{number}")
        for more in NOBODYS:
            desk.put(desk.room, {**WORD, "ts": desk.tick(), **more})
        for more in ODD:
            desk.messages[desk.room].append({**WORD, **more})
        await desk.say("alice", "in a thread of before", thread_ts=root)
        await desk.say("alice", "in the oldest thread", thread_ts=old)
        await desk.say("carol", "a first word", private=True)
        desk.once["conversations.history"] = [
            web.json_response({}, status=429, headers={"Retry-After": "0"})
        ]
        async with Ear(desk, cursor) as ear:
            await ear.until(lambda: "a first word" in ear.texts())
            await desk.say("alice", "live again")
            await ear.until(lambda: "live again" in ear.texts())
            again, *room = [each for each in ear.heard if each.room == desk.room]
            # Of its last seconds all is said again, by the same name.
            assert again.id == f"{desk.room}/{early}"
            assert [each.text for each in room] == [
                *(f"m{number}" for number in range(20)), "in a thread of before",
                "in the oldest thread", "live again",
            ]  # fmt: skip
            assert room[20].thread == f"{desk.room}/{root}"
            (private,) = (each for each in ear.heard if each.private)
            assert (private.account, private.room) == (desk.account("carol"), "D0CAROL")
            assert ear.odd
            cursor = ear.cursor
        async with Ear(desk, cursor) as ear:
            assert ear.texts() == ["live again"]

    run(story)


@proves("chat.contract")
def test_pages_are_read_until_what_was_heard_and_what_is_too_much_is_told(monkeypatch):
    monkeypatch.setattr(slack, "_PAGE", 10)

    async def story(desk: Slacks) -> None:
        async with Ear(desk) as ear:
            cursor = ear.cursor
        for number in range(95):
            await desk.say("alice", f"m{number}")
        async with Ear(desk, cursor) as ear:
            await ear.until(lambda: ear.cursor > cursor)
            assert ear.texts() == [f"m{number}" for number in range(95)]
            assert ear.odd == []
        monkeypatch.setattr(slack, "_PAGES_MAX", 3)
        async with Ear(desk, cursor) as ear:
            await ear.until(lambda: ear.cursor > cursor)
            assert ear.texts() == [f"m{number}" for number in range(65, 95)]
            assert "no more than 30" in ear.odd[0]
        monkeypatch.setattr(slack, "_ROOMS_MAX", 1)
        monkeypatch.setattr(slack, "_THREADS_MAX", 1)
        for name in ("bob", "carol"):
            root = await desk.say("alice", f"to {name}")
            await desk.say("alice", f"below, of {name}", thread_ts=root)
            await desk.say(name, "in private", private=True)
        monkeypatch.setattr(slack, "_PAGE", 200)
        async with Ear(desk, cursor) as ear:
            await ear.until(lambda: ear.cursor > cursor)
            assert ear.texts()[-4:] == ["to bob", "to carol", "below, of carol", "in private"]
            assert [each.account for each in ear.heard if each.private] == [desk.account("bob")]
            assert len(ear.odd) == 2

    run(story)


@proves("chat.contract")
def test_a_room_that_cannot_be_read_stops_nobody_and_what_came_late_is_heard():
    async def story(desk: Slacks) -> None:
        desk.room = "C0NONE"
        desk.messages["C0ROOM"] = []
        desk.once["conversations.list"] = [{"ok": True, "channels": [5, {"id": "D1"}, {}]}]
        async with Ear(desk) as ear:
            assert "channel_not_found" in ear.odd[0]
            await desk.say("bob", "hello", private=True)
            await ear.until(lambda: ear.texts() == ["hello"])
            cursor = ear.cursor
            # Told after a newer one, and not heard before the end.
            late = f"{int(cursor[:10]) - 3}.000000"
            desk.put("D0BOB", {**WORD, "ts": late, "text": "late"})
        async with Ear(desk, cursor) as ear:
            await ear.until(lambda: len(ear.heard) == 2)
            assert ear.texts() == ["late", "hello"]
            await desk.tell({
                **WORD, "ts": f"{int(cursor[:10]) - 90}.000000", "text": "later",
                "channel": "D0BOB", "channel_type": "im",
            })  # fmt: skip
            await ear.until(lambda: len(ear.heard) == 3)
            assert ear.cursor == cursor
        with pytest.raises(Denied, match="it needs the scope im:read"):
            desk.once["conversations.list"] = [
                {"ok": False, "error": "missing_scope", "needed": "im:read"}
            ]
            async with Ear(desk, "no cursor"):
                await asyncio.Event().wait()

    run(story)
