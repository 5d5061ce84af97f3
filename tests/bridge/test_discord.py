"""What Discord alone does: sessions, presses that wait, privileges, markup, and odd answers."""

import asyncio
import itertools
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.bridge.desk import NO, YES, Hub
from tests.bridge.discords import BOT, ELSEWHERE, GUILD, Discords, answer
from tests.promise import proves

from muster.bridge import discord_payload as payload
from muster.bridge.base import Button, Passed, Post, Pressed, Said, Slow
from muster.bridge.wire import Heed, read_word
from muster.errors import Broken, Malformed, Unreachable

discord = pytest.importorskip("discord")

from muster.bridge import discord as bridge  # noqa: E402 - it needs its client


class Ear(Hub):
    """It says, too, how often it was told of something."""

    def __init__(self, desk: Discords, cursor: str = "") -> None:
        super().__init__(desk, cursor)
        self.words: list[Any] = []

    def _says(self, raw: bytes) -> None:
        word = read_word(raw)
        if isinstance(word, Heed):
            self.words.append(word.heard)
        super()._says(raw)

    def said(self) -> list[str]:
        return [each.text for each in self.words if isinstance(each, Said)]


async def heard(desk: Discords) -> Ear:
    """A bridge whose session has begun."""
    ear = Ear(desk)
    await ear.__aenter__()
    await ear.until(lambda: ear.cursor or ear.ends)
    assert not ear.ends, ear.ends
    return ear


def run(work: Callable[[Discords], Awaitable[None]], **odd: Any) -> None:
    async def all_of_it() -> None:
        desk = Discords()
        await desk.open()
        vars(desk).update(odd)
        try:
            await work(desk)
        finally:
            await desk.close()

    asyncio.run(all_of_it())


def called(desk: Discords) -> list[Any]:
    return [body for path, body in desk.asked if path.startswith("POST /interactions/")]


@proves("chat.contract")
def test_a_session_is_come_back_to_and_what_a_lost_one_missed_is_fetched(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)

    async def no_pause(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr(discord.Client, "before_identify_hook", no_pause)

    async def work(desk: Discords) -> None:
        ear = await heard(desk)
        await desk.say("alice", "one")
        await desk.reconnect()
        await desk.say("alice", "two")
        await desk.say("bob", "in private", private=True)
        await ear.until(lambda: len(ear.said()) == 3)
        assert len(desk.sessions) == 1
        # The service knows this session no more: it is told nothing of what it missed.
        for session in desk.sessions.values():
            session.lives = False
        for number in range(30):
            await desk.say("alice", f"m{number}")
        await desk.say("bob", "and here", private=True)
        await desk._drop(4000)
        await ear.until(lambda: len(ear.said()) == 34)
        assert len(desk.sessions) == 2
        await desk.say("alice", "last")
        await ear.until(lambda: "last" in ear.said())
        public = [each for each in ear.said() if each not in {"in private", "and here"}]
        assert public == ["one", "two", *(f"m{number}" for number in range(30)), "last"]
        words = [each for each in ear.words if isinstance(each, Said)]
        assert {each.text for each in words if each.private} == {"in private", "and here"}
        await ear.__aexit__()

    run(work)
    # The library's log has addresses with tokens in them, and is nobody's.
    assert [each for each in caplog.records if each.name.startswith("discord")] == []


@proves("chat.contract")
@pytest.mark.parametrize("kind", ["READY", "RESUMED"])
def test_a_gateway_that_the_library_cannot_read_ends_it_for_a_while(kind):
    async def work(desk: Discords) -> None:
        ear = await heard(desk)
        await desk.told(kind, None)
        ends = await ear.over()
        assert (ends.lasting, "cannot be read" in ends.why) == (False, True), ends
        await ear.__aexit__()

    run(work)


@proves("chat.contract")
def test_pages_are_read_in_their_order_and_what_comes_on_both_ways_is_heard_once(monkeypatch):
    monkeypatch.setattr(bridge, "_PAGE", 7)

    async def work(desk: Discords) -> None:
        await desk.say("alice", "before anybody heard")
        ear = await heard(desk)
        await desk.say("alice", "first")
        await ear.until(lambda: "first" in ear.said())
        await ear.__aexit__()
        for number in range(30):
            await desk.say("alice", f"m{number}")
        # Two of one millisecond, of which the later one has the lower number, where a page ends.
        there = desk.messages[desk.room]
        (one, first), (_, second) = [*there.items()][8:10]
        assert [first["content"], second["content"]] == ["m6", "m7"]
        swapped = {**first, "id": str(int(one) + 2)}, {**second, "id": str(int(one) + 1)}
        desk.messages[desk.room] = {
            each["id"]: each for each in (*[*there.values()][:8], *swapped, *[*there.values()][10:])
        }
        page, tasks = desk._page, []

        def and_now(there: Any, query: Any) -> Any:
            if not tasks:
                tasks.append(asyncio.ensure_future(desk.say("alice", "now")))
            return page(there, query)

        desk._page = and_now  # type: ignore[method-assign]
        again = Ear(desk, ear.cursor)
        await again.__aenter__()
        await again.until(lambda: "now" in again.said() or again.ends)
        await desk.say("alice", "last")
        await again.until(lambda: "last" in again.said())
        assert again.said() == [*(f"m{number}" for number in range(30)), "now", "last"]
        await again.__aexit__()
        assert ear.said() == ["first"]

    run(work)


@proves("chat.contract")
def test_a_press_is_answered_once_it_is_kept_and_none_of_another_server_is_heard():
    async def work(desk: Discords) -> None:
        ear = await heard(desk)
        ref = (await ear.post("may it?", (YES, NO))).ref
        number = ref.rpartition("/")[2]
        other = desk.pressed("eve", desk.room, number, YES.data) | {"guild_id": ELSEWHERE}
        await desk.told("INTERACTION_CREATE", other)
        typed = desk.pressed("eve", desk.room, number, YES.data) | {"type": 2}
        await desk.told("INTERACTION_CREATE", typed)
        nobody = desk.pressed("eve", desk.room, number, YES.data) | {"member": None}
        await desk.told("INTERACTION_CREATE", nobody)
        private = desk.pressed("bob", desk.room, number, NO.data)
        del private["guild_id"], private["member"]
        await desk.told("INTERACTION_CREATE", private | {"user": desk.user("bob")})
        await ear.until(lambda: ear.heard)
        assert [(each.account, each.data) for each in ear.heard] == [(desk.account("bob"), NO.data)]
        await desk.until(lambda: called(desk))
        assert called(desk) == [{"type": 6}]
        # Too late, or not taken: it was heard all the same.
        for status in (401, 404, 429, 500):
            desk.instead = {"interactions": lambda status=status: answer({}, status)}
            del desk.asked[:]
            await desk.press("alice", ref, YES)
            await desk.until(lambda: called(desk))
        await desk.press("bob", ref, YES)
        await ear.until(lambda: ear.heard[-1].account == desk.account("bob") or ear.ends)
        assert not ear.ends, ear.ends
        await desk.until(lambda: len(called(desk)) == 2)
        del desk.asked[:], desk.instead["interactions"]
        ear.keeps = False
        await desk.press("alice", ref, YES)
        await ear.until(lambda: isinstance(ear.words[-1], Pressed))
        await ear.post("a request more")
        await ear.__aexit__()
        assert called(desk) == []

    run(work)


@proves("chat.contract")
def test_a_press_does_not_wait_until_what_was_missed_is_heard():
    async def work(desk: Discords) -> None:
        ref = f"{desk.room}/5"
        await desk.say("alice", "of a long night")
        desk.shows.clear()
        ear = Ear(desk)
        await ear.__aenter__()
        await desk.begun.wait()
        await desk.press("alice", ref, YES)
        await ear.until(lambda: ear.heard)
        assert [each.ref for each in ear.heard] == [ref]
        assert not ear.cursor
        desk.shows.set()
        await ear.until(lambda: ear.cursor)
        await ear.__aexit__()

    run(work)


@proves("chat.contract")
def test_bots_webhooks_other_servers_and_the_services_own_words_are_passed_over():
    async def work(desk: Discords) -> None:
        ear = await heard(desk)
        for more in (
            {"author": desk.user("other") | {"bot": True}},
            {"webhook_id": "9"},
            {"type": 7},
        ):
            await desk.keep(desk.message("eve", "not this", desk.room, **more))
        await desk.keep(desk.message("eve", "not this", "999"), ELSEWHERE)
        await desk.keep(desk.message("eve", "in another channel of the server", "101"))
        below = {"type": 19, "message_reference": {"message_id": "5", "channel_id": desk.room}}
        await desk.keep(desk.message("eve", "an answer", desk.room, **below))
        await ear.until(lambda: len(ear.said()) == 2)
        assert ear.said() == ["in another channel of the server", "an answer"]
        assert ear.heard[-1].thread == f"{desk.room}/5"
        whose, _, cursor = ear.cursor.partition(" ")
        kept = json.loads(cursor)
        assert sorted(kept["channels"]) == [desk.room, "101"]
        assert kept["guild"] == GUILD
        await ear.__aexit__()
        # What was kept of one server is nothing in another one.
        kept |= {"guild": ELSEWHERE, "channels": {"999": "1", "998": "1"}}
        again = Ear(desk, f"{whose} {json.dumps(kept)}")
        await again.__aenter__()
        await again.until(lambda: again.cursor.startswith(f'{whose} {{"guild":"{GUILD}"'))
        assert list(json.loads(again.cursor.partition(" ")[2])["channels"]) == [desk.room]
        await again.__aexit__()

    run(work)


@proves("chat.contract")
def test_what_waits_and_what_is_known_is_bounded_and_no_token_goes_to_a_plain_gateway(monkeypatch):
    monkeypatch.setattr(bridge, "_KNOWN_MAX", 5)
    monkeypatch.setattr(bridge, "_WAITING_MAX", 3)
    heard, desk = list[Any](), Discords()

    async def keep(what: Any, cursor: str = "") -> None:
        heard.append((what, cursor))

    async def gateway(*_: Any) -> Any:
        starts = {"remaining": 1, "reset_after": 0}
        return {"url": "ws://gateway.example", "session_start_limit": starts}

    async def work() -> None:
        found = bridge.Discord(desk.token, {"room": desk.room})
        found._guild, found._over = GUILD, asyncio.get_running_loop().create_future()
        for number in range(9):
            message = payload.as_(desk.message("alice", f"m{number}", desk.room), payload.Message)
            await found._heard(message, GUILD, keep)
        assert [each.text for each, _ in heard] == [f"m{number}" for number in range(9)]
        assert len(found._known) == 5
        said = desk.message("alice", "x", desk.room)
        for _ in range(3):
            found.came(json.dumps({"op": 0, "t": "MESSAGE_CREATE", "d": said}))
        assert not found._over.done()
        found.came(json.dumps({"op": 0, "t": "MESSAGE_CREATE", "d": said}))
        with pytest.raises(Unreachable, match="more than is kept"):
            await found._over
        monkeypatch.setattr(found, "_ask", gateway)
        with pytest.raises(Unreachable, match="not encrypted"):
            await found._gateway()
        await found.close()

    asyncio.run(work())


ODD = (None, True, 7, -1, 1.5, "", "x", "1" * 40, "\x00", [], [{}], {}, {"id": 5}, {"id": "x"})


@proves("chat.contract")
def test_no_field_of_an_event_or_of_a_page_ends_a_bridge():
    async def work(desk: Discords) -> None:
        ear = await heard(desk)
        whole = desk.message("alice", "x", desk.room) | {"guild_id": GUILD}
        press = desk.pressed("alice", desk.room, "5", YES.data)
        for kind, event in (("MESSAGE_CREATE", whole), ("INTERACTION_CREATE", press)):
            for name, odd in itertools.product(event, ODD):
                await desk.told(kind, event | {"id": desk.number(), name: odd})
            for odd in ODD:
                await desk.told(kind, odd)
        for odd in ODD:
            await desk.told("GUILD_CREATE", odd)
        await desk.say("alice", "what all came for")
        await ear.until(lambda: ear.said()[-1:] == ["what all came for"] or ear.ends)
        assert not ear.ends, ear.ends
        odd = [each.odd for each in ear.words if isinstance(each, Passed)]
        assert sum("cannot be read" in each for each in odd) > len(ODD)
        await ear.__aexit__()
        # A page of them: those that have a number stand where they were said.
        for name, odd in itertools.product(("author", "content", "type", "webhook_id"), ODD):
            number = desk.number()
            desk.messages[desk.room][number] = whole | {"id": number, name: odd}
        desk.messages[desk.room]["1" + number] = whole | {"channel_id": "102"}
        await desk.say("alice", "and this")
        again = Ear(desk, ear.cursor)
        await again.__aenter__()
        await again.until(lambda: again.said()[-1:] == ["and this"] or again.ends)
        assert not again.ends, again.ends
        assert {each.room for each in again.words if isinstance(each, Said)} == {desk.room}
        await again.__aexit__()

    run(work)


@proves("chat.contract")
@pytest.mark.parametrize(
    ("odd", "lasting", "why"),
    [
        ({"intents": 0}, True, "Message Content Intent"),
        ({"_revoked": True}, True, "does not accept the token"),
        ({"endpoint": "https://x.example"}, True, "Interactions Endpoint URL"),
        ({"starts": 0}, False, "asks to wait for 7200 s"),
        ({"shuts": True}, False, "ends each connection before it begins"),
        ({"room": "404"}, False, "may not see the channel 404: Discord refuses it: 404"),
        ({"room": "general"}, True, "number of a channel"),
    ],
)
def test_what_keeps_a_bridge_from_its_work_is_said(odd, lasting, why):
    async def work(desk: Discords) -> None:
        ear = Ear(desk)
        await ear.__aenter__()
        ends = await ear.over()
        assert (ends.lasting, why in ends.why) == (lasting, True), ends
        await ear.__aexit__()

    run(work, **odd)


ANSWERS = (
    (lambda: answer({}, 500), False), (lambda: answer([], 502), False),
    (lambda: answer({}, 429, {"Retry-After": "1e9"}), False),
    (lambda: answer({"message": 5, "errors": [1]}, 400), False),
    (lambda: answer({"message": "x", "errors": {"a": {"_errors": 5}}}, 403), False),
    (lambda: answer([[]]), False), (lambda: answer(7), False), (lambda: answer(None), False),
    (lambda: answer({"id": {}, "url": 5, "guild_id": [], "session_start_limit": "x"}), False),
    (lambda: answer({"url": "ftp://x", "session_start_limit": {"remaining": 5}}), False),
    (lambda: answer({}, 200, {"X-Ratelimit-Remaining": "x"}), False),
)  # fmt: skip

SOON = (lambda: answer({"retry_after": {}}, 429, {"Retry-After": "soon", "Via": "x"}), False)


@proves("chat.contract")
@pytest.mark.parametrize("path", ["users/@me", "oauth2/applications/@me", "gateway/bot", "room"])
def test_no_answer_of_the_service_is_an_error_of_ours(path, capfd):
    async def work(desk: Discords) -> None:
        where = "channels/100" if path == "room" else path
        for odd, lasting in ANSWERS:
            desk.instead = {where: odd}
            ear = Ear(desk)
            await ear.__aenter__()
            if path == "room" and odd().status == 200:
                # Nothing of it is needed.
                await ear.until(lambda ear=ear: ear.cursor or ear.ends)
            else:
                await ear.over()
            assert ear.ends is None or ear.ends.lasting is lasting, ear.ends
            await ear.__aexit__()

    run(work)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


@proves("chat.contract")
def test_a_post_is_refused_or_waits_by_our_word_and_not_by_the_librarys():
    async def work(desk: Discords) -> None:
        ear = await heard(desk)
        found = bridge.Discord(desk.token, {"url": desk.url, "room": desk.room})
        assert await found.begin() == BOT
        post, messages = Post(desk.room, "x", (YES,)), f"channels/{desk.room}/messages"
        await desk.slow_down()
        with pytest.raises(Slow) as slow:
            await found.post(post, "k")
        assert slow.value.wait_s == 1.0
        ref = await found.post(post, "k")
        for room in ("", "x", "../users", "1/2"):
            with pytest.raises(Malformed):
                await found.post(Post(room, "x"), "k")
            with pytest.raises(Malformed):
                await found.edit(room, post, "k")
        with pytest.raises(Malformed, match="404"):
            await found.edit(f"{desk.room}/4", post, "k")
        for odd, _ in (*ANSWERS, SOON):
            desk.instead = {messages: odd}
            with pytest.raises((Malformed, Unreachable)):
                await found.post(post, "other")
            desk.instead = {f"{messages}/{ref.rpartition('/')[2]}": odd}
            if odd().status != 200:
                with pytest.raises((Malformed, Unreachable)):
                    await found.edit(ref, post, "k")
        await found.close()
        desk.instead = {}
        (body, *_) = [body for path, body in desk.asked if path == f"POST /{messages}"]
        assert body["allowed_mentions"] == {"parse": [], "replied_user": False}
        await ear.__aexit__()

    run(work)


ROWS = (
    ("plain, words. (two) 1.5", "plain, words. (two) 1.5"),
    ("**b** _i_ ~~s~~ ||x|| `c`", r"\*\*b\*\* \_i\_ \~\~s\~\~ \|\|x\|\| \`c\`"),
    ("# big\n> said\n- one\n1. two", "\\# big\n\\> said\n\\- one\n1\\. two"),
    ("[here](x) <t:1> <:e:1>", r"\[here\](x) ‹t:1\> ‹\:e:1\>"),
    (":fire: a: b", r"\:fire: a: b"),
    ("discord.gg/x a/b", r"discord.gg\/x a/b"),
    ("a\\*b", r"a\\\*b"),
)


@proves("chat.words")
def test_every_sign_of_markup_is_escaped_and_what_is_cut_has_no_buttons():
    for text, wanted in ROWS:
        found, whole = payload.escaped(text, 2_000)
        assert whole
        # A sign behind a backslash is that sign, and none of markup.
        bare = re.sub(r"\\[^0-9A-Za-z\s]", "", found)
        assert not re.search(r"[*_~|`<>#\[\]-]|:\w+:|^\d\. ", bare, re.MULTILINE), found
        assert found == wanted
    for long in ("x" * 5_000, "*" * 2_000, "-x" * 900, "\u202e" * 3_000, "ab\n" * 999):
        found, whole = payload.escaped(f"begin {long} end", 2_000)
        assert (whole, len(found) <= 2_000) == (False, True)
        assert len(found) > 1_900
        assert (found[:6], found[-4:]) == ("begin ", " end")
        assert "left out here" in found
        body = payload.body(Post("1", f"begin {long} end", (YES, NO)))
        assert body["components"] == []
        assert "a terminal shows all of it" in body["content"]
        assert len(body["content"]) <= 2_000
    (row,) = payload.body(Post("1", "x", (Button("d" * 64, "l" * 200, "s"), NO)))["components"]
    assert [len(each["label"]) <= 80 for each in row["components"]] == [True, True]


@proves("chat.contract")
def test_a_cursor_is_bounded_keeps_the_room_and_goes_forward_alone():
    cursor = payload.Cursor(GUILD)
    cursor.move("100", "5", GUILD, keep="100")
    for number in range(500):
        cursor.move(f"{10**18 + number}", f"{10**18}", GUILD, keep="100")
        cursor.move(f"{10**18 + number}", f"{10**18}", None, keep="100")
    assert len(cursor.text()) < 16_384
    assert (len(cursor.channels), len(cursor.private)) == (
        payload.CHANNELS_MAX,
        payload.PRIVATE_MAX,
    )
    assert cursor.channels["100"] == "5"
    cursor.move("100", "4", GUILD)
    assert cursor.channels["100"] == "5"
    assert payload.cursor(cursor.text()) == cursor
    for odd in ("", "x", "[]", '{"channels":{"a":"1"}}', '{"guild":5}', "[" * 9_999):
        assert payload.cursor(odd) == payload.Cursor()
    for room in ("", "general", "-1", "１", "1" * 30, "1\n"):
        with pytest.raises(Broken):
            bridge.Discord("t", {"room": room})
