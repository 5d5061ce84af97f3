"""One suite for every bridge: the process of each, with the official client of its service.

Each row is one promise of the contract; Matrix is a real server, the others are fakes that speak
the protocol of theirs on loopback.
"""

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable

import pytest
from tests.bridge.desk import AGAIN, LOOK, NO, YES, Desk, Hub, Seen
from tests.bridge.discords import Discords
from tests.bridge.slacks import Slacks
from tests.bridge.synapse import Rooms, Server
from tests.bridge.telegrams import MOVED, Telegrams
from tests.promise import proves

from muster.bridge.base import Pressed, Said
from muster.bridge.services import SERVICES, load

CLIENTS = {
    "discord": "discord",
    "matrix": "nio",
    "slack": "slack_sdk",
    "telegram": "telegram",
}
FAKES = {
    "discord": Discords,
    "slack": Slacks,
    "telegram": Telegrams,
}
Row = Callable[[Desk], Awaitable[None]]


@pytest.fixture(scope="session")
def homeserver(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("synapse"))
    yield server
    server.close()


@pytest.fixture(params=sorted(CLIENTS))
def make(request) -> Callable[[], Desk]:
    if importlib.util.find_spec(CLIENTS[request.param]) is None:
        pytest.skip(f"{CLIENTS[request.param]} is not installed")
    if request.param == "matrix":
        server = request.getfixturevalue("homeserver")
        return lambda: Rooms(server)
    return FAKES[request.param]


@proves("chat.contract")
def test_what_a_post_holds_is_said_without_a_client_as_the_bridge_says_it():
    here = [each for each in SERVICES if importlib.util.find_spec(CLIENTS[each])]
    assert {SERVICES[each].text_chars - load(each).limits.text_chars for each in here} <= {0}
    assert CLIENTS.keys() == SERVICES.keys()


def run(make: Callable[[], Desk], *rows: Row) -> None:
    """Each row with the people and the service of the one before."""

    async def all_of_them() -> None:
        desk = make()
        await desk.open()
        try:
            for row in rows:
                await row(desk)
        finally:
            await desk.close()

    asyncio.run(all_of_them())


async def begun(desk: Desk) -> Hub:
    """A bridge that has heard the first word."""
    hub = Hub(desk, desk.cursor)
    await hub.__aenter__()
    await hub.until(lambda: hub.cursor or hub.ends)
    assert not hub.ends, hub.ends
    return hub


async def ref_of(desk: Desk, ref: str) -> Seen:
    (found,) = [each for each in await desk.seen() if each.ref == ref]
    return found


# --- rows ----------------------------------------------------------------------------------------


async def words_come_in_their_order_from_accounts(desk: Desk) -> None:
    hub = await begun(desk)
    for number in range(5):
        await desk.say("alice", f"w{number}")
    await desk.say("bob", "from bob", private=True)
    await hub.until(lambda: len(hub.texts()) == 6)
    assert [text for text in hub.texts() if text != "from bob"] == [f"w{n}" for n in range(5)]
    by = {each.text: each for each in hub.heard if isinstance(each, Said)}
    assert by["w0"].account == desk.account("alice")
    assert (by["w0"].private, by["w0"].room) == (False, desk.room)
    assert by["w0"].below == (by["w0"].id if desk.below else "")
    assert (by["from bob"].private, by["from bob"].account) == (True, desk.account("bob"))
    assert desk.bot in by["from bob"].id
    await hub.__aexit__()


async def posts_are_shown_pressed_and_changed(desk: Desk) -> None:
    hub = await begun(desk)
    there = await hub.post("claude asks: write a.py", (YES, NO))
    assert not there.refused, there
    seen = await ref_of(desk, there.ref)
    assert seen.text.startswith("claude asks: write a.py")
    assert list(seen.buttons) == [YES.data, NO.data]
    await desk.press("alice", there.ref, NO)
    await hub.until(lambda: any(isinstance(each, Pressed) for each in hub.heard))
    (pressed,) = [each for each in hub.heard if isinstance(each, Pressed)]
    assert (pressed.ref, pressed.data) == (there.ref, NO.data)
    assert pressed.account == desk.account("alice")
    await hub.post("claude asked.\n\ndenied by alice", ref=there.ref)
    seen = await ref_of(desk, there.ref)
    assert seen.text.endswith("denied by alice")
    assert list(seen.buttons) == []
    await hub.__aexit__()


async def a_post_that_was_changed_has_the_buttons_that_it_shows(desk: Desk) -> None:
    hub = await begun(desk)
    ref = (await hub.post("it is full", (LOOK,))).ref
    await hub.post("it is fuller", (AGAIN,), ref=ref)
    await desk.press("alice", ref, AGAIN)
    await hub.until(lambda: any(isinstance(each, Pressed) for each in hub.heard))
    pressed = [each for each in hub.heard if isinstance(each, Pressed)]
    assert [(each.ref, each.data) for each in pressed] == [(ref, AGAIN.data)]
    # What was shown before may be so again.
    for text in ("it is over", "it is full again", "it is over", "it is full again"):
        await hub.post(text, ref=ref)
        seen = await ref_of(desk, ref)
        assert seen.text.endswith(text)
    await hub.__aexit__()


async def what_it_says_itself_and_what_is_edited_is_not_heard(desk: Desk) -> None:
    hub = await begun(desk)
    await hub.post("I am the bot")
    await desk.say("alice", "first")
    await desk.edit_last("alice", "muster run evil")
    await desk.say("alice", "last")
    await hub.until(lambda: "last" in hub.texts())
    assert hub.texts() == ["first", "last"]
    await hub.__aexit__()


async def text_is_plain_and_cut(desk: Desk) -> None:
    hub = await begun(desk)
    hostile = "@everyone @room @channel <!channel> <@U1> \u202egnp.exe\u2066 **bold** <b>x</b>"
    seen = await ref_of(desk, (await hub.post(hostile)).ref)
    for call in ("@everyone", "@room", "@channel", "<!channel>", "<@U1>", "\u202e", "\u2066"):
        assert call not in seen.text
    assert "[U+202E]gnp.exe" in seen.text.replace("\\", "")
    long = "begin " + "x" * 20_000 + " end"
    seen = await ref_of(desk, (await hub.post(long)).ref)
    assert len(seen.text) <= 16_000
    assert seen.text.startswith("begin ")
    assert seen.text.endswith(" end")
    assert "left out here" in seen.text
    await hub.__aexit__()


async def a_restart_loses_and_doubles_none_of_sixty(desk: Desk) -> None:
    hub = await begun(desk)
    await desk.say("alice", "before")
    await hub.until(lambda: "before" in hub.texts())
    cursor = hub.cursor
    # What is heard and not kept is heard again, whatever ends the process.
    hub.keeps = False
    for number in range(20):
        await desk.say("alice", f"m{number}")
    await hub.__aexit__()
    for number in range(20, 60):
        await desk.say("alice", f"m{number}")
    again = Hub(desk, cursor)
    again.heard = list(hub.heard)
    await again.__aenter__()
    await again.until(lambda: "m59" in again.texts() or again.ends)
    assert again.texts() == ["before", *(f"m{number}" for number in range(60))]
    await again.__aexit__()


async def an_equal_key_is_one_post_where_the_service_can_tell(desk: Desk) -> None:
    hub = await begun(desk)
    first = await hub.post("once", key="same")
    again = await hub.post("once", key="same")
    assert (first.ref == again.ref) == desk.idempotent
    await hub.__aexit__()


async def it_waits_where_the_service_asks_for_it(desk: Desk) -> None:
    hub = await begun(desk)
    await desk.slow_down()
    there = await hub.post("after a while")
    assert there.ref
    assert not there.refused
    await hub.__aexit__()


async def a_room_that_is_another_one_now_is_told_and_ends_nothing(desk: Desk) -> None:
    if desk.name != "telegram":
        return
    hub = await begun(desk)
    for ref in ("", f"{MOVED}/7"):
        there = await hub.post("hello", room=MOVED, ref=ref)
        assert there.refused.endswith(f"its room is {desk.room}")
    assert (await hub.post("hello")).ref
    await hub.__aexit__()


async def a_token_that_is_revoked_ends_it_for_good(desk: Desk) -> None:
    hub = await begun(desk)
    await desk.revoke()
    await desk.say("alice", "wake up")
    ends = await hub.over()
    assert ends.lasting
    assert desk.token not in ends.why


async def a_service_that_is_gone_ends_it_for_a_while(desk: Desk) -> None:
    hub = await begun(desk) if desk.name != "matrix" else None
    await desk.cut()
    if hub is None:
        hub = await Hub(desk).__aenter__()
    ends = await hub.over()
    assert not ends.lasting
    assert desk.token not in ends.why


@proves("chat.contract")
def test_what_people_say_and_press_is_heard_and_what_is_posted_is_there(make):
    run(
        make, words_come_in_their_order_from_accounts, posts_are_shown_pressed_and_changed,
        a_post_that_was_changed_has_the_buttons_that_it_shows,
        what_it_says_itself_and_what_is_edited_is_not_heard, text_is_plain_and_cut,
        an_equal_key_is_one_post_where_the_service_can_tell,
    )  # fmt: skip


@proves("chat.contract")
def test_nothing_is_lost_over_a_restart_and_a_revoked_token_is_told(make):
    run(
        make,
        a_restart_loses_and_doubles_none_of_sixty,
        it_waits_where_the_service_asks_for_it,
        a_room_that_is_another_one_now_is_told_and_ends_nothing,
        a_token_that_is_revoked_ends_it_for_good,
    )


@proves("chat.contract")
def test_a_service_that_is_gone_and_options_of_no_use_end_the_process(make):
    run(make, a_service_that_is_gone_ends_it_for_a_while)
