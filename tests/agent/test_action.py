"""What a yes is bound to, and how long an attempt waits for one."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.agent.world import until
from tests.promise import proves

from muster.agent import acp
from muster.agent.action import class_of, digest
from muster.agent.lines import middle
from muster.agent.mask import Secrets
from muster.agent.permission import Permissions
from muster.agent.transcript import Transcript
from muster.agent.waited import WAITED_S_MAX, Waited
from muster.printable import named

ORDER: dict[str, Any] = {"cwd": "/srv", "policy": {}, "sandbox": {"network": "none"}}
CALL = {
    "toolCallId": "c1", "title": "run", "kind": "execute", "status": "pending",
    "rawInput": {"command": "x" * 100_000, "file_path": "a"}, "locations": [{"path": "a"}],
}  # fmt: skip
LINKS = {"/srv/a": "/srv/a"}


def number(
    order: Any = (), call: Any = (), links: Any = (), paths: Any = ("a",), **more: str
) -> str:
    known = {"session": "s1", "nonce": "n1", **more}
    where = {**LINKS, **dict(links)}
    return digest(
        {**ORDER, **dict(order)}, known["session"], {**CALL, **dict(call)}, paths, known["nonce"],
        resolve=lambda path: where.get(path, path),
    )  # fmt: skip


# One byte at the end of what no journal shows; where a link leads; what it is done under.
CHANGES: tuple[dict[str, Any], ...] = (
    {"call": {"rawInput": {"command": "x" * 99_999 + "y", "file_path": "a"}}},
    {"call": {"rawInput": {"command": "x" * 100_000, "file_path": "a", "env": 1.5}}},
    {"call": {"kind": "other"}}, {"call": {"toolCallId": "c2"}}, {"call": {"title": "walk"}},
    {"call": {"content": [{"type": "diff", "path": "b", "newText": "\ud800"}]}},
    {"links": {"/srv/a": "/etc/a"}}, {"links": {"/srv": "/elsewhere"}}, {"paths": ("a", "b")},
    {"order": {"cwd": "/other"}}, {"order": {"policy": {"rules": {"edit": {}}}}},
    {"order": {"sandbox": {"network": "all"}}}, {"session": "s2"}, {"nonce": "n2"},
)  # fmt: skip


@proves("approval.whole-action")
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_of_an_action_differs_it_is_another_one(change):
    assert number(**change) != number()


@proves("approval.whole-action")
def test_its_progress_and_what_no_file_system_can_name_are_no_other_action():
    assert number(call={"status": "in_progress", "rawOutput": "so far"}) == number()
    odd = digest(ORDER, "s1", CALL, ["a\0b", "\ud800", "~", "x" * 9_000], "n1")
    assert len(odd) == 64
    assert {class_of(kind) for kind in ("edit", "delete", "move")} == {"edit-outside"}
    assert [class_of(kind) for kind in ("execute", "fetch", "switch_mode", "read", "x")] == [
        "command", "network-host", "plan", "read-outside", "other",
    ]  # fmt: skip


@proves("approval.shown")
def test_what_is_shown_has_both_its_ends_and_names_what_cannot_be_seen():
    text = "rm " + "x" * 1_000 + " /etc"
    shown = middle(text, 100)
    assert shown.startswith("rm xx")
    assert shown.endswith("x /etc")
    assert "…[908 bytes cut]…" in shown
    assert middle("ä" * 10, 20) == "ä" * 10
    assert middle("ä" * 40, 21).count("\ufffd") == 0
    assert named("a\u202eb\u200bc\x1b[2Jd\u2066\U000e0041 \u3164é\tü\n") == (
        "a<U+202E RIGHT-TO-LEFT OVERRIDE>b<U+200B ZERO WIDTH SPACE>c<U+001B>[2Jd"
        "<U+2066 LEFT-TO-RIGHT ISOLATE><U+E0041 TAG LATIN CAPITAL LETTER A> "
        "<U+3164 HANGUL FILLER>é\tü\n"
    )


@proves("approval.time-limit")
def test_what_an_attempt_waits_for_people_is_counted_once_and_bounded():
    now = [0.0]
    pause = Waited(lambda: now[0])
    heard = (
        (1, "agent.ask", {"ask": "1"}, 0), (4, "agent.ask", {"ask": "2"}, 3),
        (6, "agent.decision", {"ask": "1"}, 5), (9, "agent.decision", {"answer": "allow"}, 8),
        (10, "agent.decision", {"ask": "2"}, 9), (90, "agent.output", {"ask": "3"}, 9),
        (91, "agent.decision", {"ask": "2"}, 9), (100, "agent.ask", {"ask": "4"}, 9),
        (1e9, "agent.use", {"ask": "4"}, WAITED_S_MAX),
    )  # fmt: skip
    for at, kind, fields, seconds in heard:
        now[0] = at
        pause.heard(kind, fields)
        assert pause.seconds == seconds, at
    assert not pause.goes_on, "for a day in all"


@proves("approval.one-action")
def test_what_changes_between_the_last_look_and_the_word_is_not_let():
    told: list[Any] = []
    transcript = Transcript(Secrets({}))
    order = {"cwd": "/srv", "ask_timeout_s": 60.0, "policy": {}, "sandbox": {}}
    asking = Permissions(order, transcript, Secrets({}), told.extend)
    listed = [{"optionId": kind, "kind": kind} for kind in ("allow_once", "reject_once")]
    call = {"toolCallId": "c1", "kind": "other", "title": "x", "rawInput": {"to": "a"}}

    async def heard(kind: str, number: int) -> Any:
        found = lambda: [fields for each, fields in told if each == kind]  # noqa: E731
        assert await until(lambda: len(found()) > number)
        return found()[number]

    async def go() -> Any:
        asked = {"sessionId": "s1", "toolCall": call, "options": listed}
        answer = asyncio.create_task(asking.request(asked))
        asking.answer((await heard("agent.ask", 0))["ask"], "again")
        for number, word in enumerate(("use", "use", "again", "other")):
            ask = (await heard("agent.ask", number + 1))["ask"]
            asking.answer(ask, "allow")
            await heard("agent.use", number)
            if number == 0:
                transcript.tool({"toolCallId": "c1", "rawInput": {"to": "b"}})
            if number == 1:
                transcript.tool({"toolCallId": "c1", "rawInput": {"to": "c"}})
            asking.answer(ask, word)
        return await answer

    assert asyncio.run(go())["outcome"]["optionId"] == "reject_once"
    decided = [fields["answer"] for kind, fields in told if kind == "agent.decision"]
    assert decided == [*["changed"] * 4, "deny"]


@proves("approval.one-action")
def test_what_an_agent_asks_while_it_is_told_something_is_no_persons_no_and_later_it_may_ask_again():
    told: list[Any] = []
    order = {"cwd": "/srv", "ask_timeout_s": 60.0, "policy": {}, "sandbox": {}}
    asking = Permissions(order, Transcript(Secrets({})), Secrets({}), told.extend)
    listed = [{"optionId": kind, "kind": kind} for kind in ("allow_once", "reject_once")]
    asks = lambda: [fields["ask"] for kind, fields in told if kind == "agent.ask"]  # noqa: E731

    def request(number: int) -> Any:
        call = {"toolCallId": f"c{number}", "kind": "other", "title": "x"}
        params = {"sessionId": "s1", "toolCall": call, "options": listed}
        return asyncio.create_task(asking.request(params))

    async def go() -> None:
        first = request(1)
        assert await until(lambda: len(asks()) == 1)
        asking.drop("muster: another word")
        await first
        second = request(2)
        assert await until(lambda: len(asks()) == 2)
        asking.answer(asks()[1], "deny")
        await second
        asking.end("muster: over")
        await request(3)

    asyncio.run(go())
    assert len(asks()) == 2, "of what nobody can answer nobody hears"
    decided = [fields["by"] for kind, fields in told if kind == "agent.decision"]
    assert decided == ["muster: another word", "person", "muster: over"]


@proves("health.told-first")
def test_an_agent_that_is_cancelled_is_told_nothing_more():
    said: list[Any] = [{"steer": "go on"}, {"cancel": "enough"}, {"steer": "finish"}, None]
    ended: list[str] = []

    async def hear() -> Any:
        return said.pop(0)

    asking = SimpleNamespace(end=ended.append, drop=ended.append)
    session: Any = SimpleNamespace(
        line=SimpleNamespace(hear=hear), permissions=asking, steering="", is_cancelled=False
    )
    peer: Any = SimpleNamespace(tell=lambda method, _params: ended.append(method))
    asyncio.run(acp._listen(session, peer, "s1"))
    assert (session.steering, session.is_cancelled) == ("go on", True)
    assert ended == [
        "muster: the agent is told something else", "session/cancel",
        "muster: the attempt is ended", "session/cancel",
    ]  # fmt: skip
