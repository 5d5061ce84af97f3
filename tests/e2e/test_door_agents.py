"""Agents at the door of a real daemon, by the SDK's own client, in both eras of the protocol."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.shared.subscriptions import ResourceUpdated

from tests.cli.world import Said, muster
from tests.e2e.fleet import NOTES, Fleet, Machine, until
from tests.e2e.test_door import door_of
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
ERAS = ("2026-07-28", "legacy")
HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(["hub", "studio"]) as made:
        made.start()
        for machine in made.machines.values():
            until(lambda m=machine: m.ask("door")["port"], "its port is held")
        yield made


def opened(machine: Machine, own: str, agent: str = "shell") -> Any:
    """A live session of an agent program there."""
    return machine.ask("session.open", {"agent": agent, "own": own, "project": "/src/shop"})


@contextlib.asynccontextmanager
async def client(machine: Machine, token: str, era: str, **more: Any) -> AsyncIterator[Client]:
    web = create_mcp_http_client(headers={"Authorization": f"Bearer {token}"})
    url = f"http://localhost:{machine.home.door_port}/mcp"
    async with web, Client(streamable_http_client(url, http_client=web), mode=era, **more) as made:
        yield made


def at(
    machine: Machine, era: str, work: Callable[[Client], Awaitable[Any]], own: str = "one"
) -> Any:
    """What an agent finds that speaks this era."""
    token = opened(machine, own)["token"]

    async def run() -> Any:
        # What the test finds is raised outside of the client, whose groups would wrap it.
        async with client(machine, token, era) as made:
            (found,) = await asyncio.gather(work(made), return_exceptions=True)
        if isinstance(found, BaseException):
            raise found
        return found

    return asyncio.run(run())


def post(machine: Machine, body: bytes, **headers: str) -> tuple[int, str]:
    """One raw POST to /mcp."""
    given = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    port = machine.home.door_port
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, 60)) as asked:
        asked.request("POST", "/mcp", body, given | headers)
        answer = asked.getresponse()
        return answer.status, answer.read().decode()


@proves("door.tools-are-verbs")
@pytest.mark.parametrize("era", ERAS)
def test_an_agent_reads_and_answers_what_another_machine_sent_and_its_reply_arrives(fleet, era):
    hub, studio = fleet.hub, fleet["studio"]

    async def work(agent: Client) -> None:
        assert (agent.protocol_version == ERAS[0]) == (era == ERAS[0])
        sent = await agent.call_tool("send", {"to": "hub", "text": f"hello in {era}"})
        assert not sent.is_error
        assert sent.structured_content["to"] == [hub.id]
        told = await asyncio.to_thread(
            hub.order, "send", "studio", {"to": "studio", "text": [f"work for {era}"]}
        )
        while True:
            box = await agent.call_tool("inbox", {})
            (mine,) = [
                m for m in box.structured_content["inbox"] if m["text"] == f"work for {era}"
            ] or [None]
            if mine:
                break
            await asyncio.sleep(0.05)
        assert json.loads(box.content[0].text) == box.structured_content
        assert mine["message"] == told["message"]
        assert mine["trust"]
        reply = await agent.call_tool("reply", {"message": mine["message"], "text": "done"})
        assert not reply.is_error
        acked = await agent.call_tool("ack", {"message": mine["message"], "note": "done"})
        assert not acked.is_error

    at(studio, era, work, own=f"reads-{era}")
    got = until(lambda: [m for m in hub.ask("inbox") if m["text"] == "done"], "the reply arrived")
    # Whoever gets it sees an agent, and which session of it: no person said this.
    assert got[-1]["from"].startswith("shell@studio")


@proves("door.tools-are-verbs")
@pytest.mark.parametrize("era", ERAS)
def test_every_tool_that_looks_gives_what_its_schema_says(fleet, era):
    async def work(agent: Client) -> None:
        listed = (await agent.list_tools()).tools
        assert 15 <= len(listed) <= 24
        by_name = {tool.name: tool for tool in listed}
        for tool in listed:
            assert tool.input_schema["additionalProperties"] is False
            assert tool.output_schema["type"] == "object"
            assert tool.annotations.open_world_hint is False
        assert {n for n, t in by_name.items() if (t.meta or {}).get("anthropic/alwaysLoad")} == {
            "inbox", "send", "reply",
        }  # fmt: skip
        kept = await agent.call_tool("remember", {"key": f"door/{era}", "text": "the tests pass"})
        assert not kept.is_error, kept
        for name, args in (
            ("machines", {}), ("agents", {}), ("threads", {}), ("runs", {}), ("tasks", {}),
            ("questions", {}), ("digest", {}),
            ("recall", {"words": "tests pass"}), ("memory", {"key": f"door/{era}"}),
        ):  # fmt: skip
            # The client holds every answer against the schema.
            found = await agent.call_tool(name, args)
            assert not found.is_error, (name, found)
            assert found.structured_content is not None
        gone = await agent.call_tool(
            "refute", {"version": kept.structured_content["version"], "reason": "no"}
        )
        assert not gone.is_error, gone

    at(fleet["studio"], era, work)


@proves("door.tools-are-verbs")
@pytest.mark.parametrize("era", ERAS)
def test_a_bad_call_is_one_sentence_with_its_exit_code(fleet, era):
    async def work(agent: Client) -> None:
        for name, args, code, says in (
            ("why", {"task": "abcdef"}, 5, "task"),
            ("send", {"to": "nowhere", "text": "x"}, 5, "nowhere"),
            ("send", {"to": "hub", "text": "x", "on": "hub"}, 3, "takes no 'on'"),
            ("inbox", {"agent": "claude"}, 3, "takes no 'agent'"),
            ("send", {"to": 7, "text": "x"}, 3, "to"),
        ):
            found = await agent.call_tool(name, args)
            assert found.is_error
            assert found.structured_content is None
            assert found.meta["muster/exitCode"] == code, found
            assert says in found.content[0].text
        with pytest.raises(MCPError, match="no tool"):
            await agent.call_tool("stop", {})

    at(fleet["studio"], era, work)


@proves("door.no-more-authority")
def test_what_needs_an_order_is_no_tool_and_a_token_is_no_order(fleet):
    studio = fleet["studio"]
    token = opened(studio, "orders")["token"]
    for verb, args in (
        ("cancel", {"what": "x"}), ("grant", {"to": "shell", "verb": "*"}), ("invite", {"name": "x"}),
        ("revoke", {"name": "hub"}), ("decide", {"task": "x", "answer": "yes"}),
    ):  # fmt: skip
        with studio.client() as local, pytest.raises(Exception, match="signature"):
            local.call(verb, args, capability=token)


@proves("door.bears-a-session")
def test_without_the_token_of_a_live_session_nothing_is_read_and_a_session_that_ends_is_out(fleet):
    studio = fleet["studio"]
    session = opened(studio, "ends")
    good = {"Authorization": f"Bearer {session['token']}"}
    hello = json.dumps(HELLO).encode()
    assert post(studio, hello, **good)[0] == 200
    for bad in (
        {}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {session['token']}"},
        {"Authorization": "Bearer muster-cap1.made-up-and-nobodys"},
        {"Authorization": f"Bearer {session['token'][:-2]}xx"},
    ):  # fmt: skip
        # What is no JSON shows that nothing was parsed, and megabytes that nothing was read.
        status, said = post(studio, b"{" * 4096, **bad)
        assert (status, session["token"] in said) == (401, False)
    assert post(studio, hello, **good, Host="evil.example")[0] == 421
    assert post(studio, hello, **good, Origin="http://evil.example")[0] == 403
    assert post(studio, b"[" * 4096, **good)[0] == 400
    studio.ask("session.close", {"session": session["session"]})
    assert post(studio, hello, **good)[0] == 401


@proves("door.bears-a-session")
def test_a_connection_of_one_session_is_no_other_ones(fleet):
    studio = fleet["studio"]
    port, body = studio.home.door_port, json.dumps(HELLO).encode()
    one, two = (opened(studio, own)["token"] for own in ("mine", "yours"))

    def asked(token: str, session: str = "") -> tuple[int, str]:
        given = {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {token}",
        }  # fmt: skip
        text = body
        if session:
            given |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-06-18"}
            text = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "ping"}).encode()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, 60)) as asking:
            asking.request("POST", "/mcp", text, given)
            answer = asking.getresponse()
            answer.read()
            return answer.status, answer.headers.get("mcp-session-id", "")

    status, session = asked(one)
    assert (status, bool(session)) == (200, True)
    assert asked(one, session)[0] == 200
    assert asked(two, session)[0] == 404


@proves("door.resources")
@pytest.mark.parametrize("era", ERAS)
def test_resources_are_read_by_their_address_and_one_that_is_none_is_said_to_be(fleet, era):
    async def work(agent: Client) -> None:
        assert {str(r.uri) for r in (await agent.list_resources()).resources} == {
            "muster://machines", "muster://inbox", "muster://digest",
        }  # fmt: skip
        assert len((await agent.list_resource_templates()).resource_templates) == 4
        found = await agent.read_resource("muster://machines")
        assert {m["name"] for m in json.loads(found.contents[0].text)} == {"hub", "studio"}
        await agent.call_tool("remember", {"key": f"res/{era}", "text": "known"})
        found = await agent.read_resource(f"muster://memory/res/{era}")
        assert "known" in found.contents[0].text
        for uri in ("muster://digest", "muster://digest/3000"):
            told = json.loads((await agent.read_resource(uri)).contents[0].text)
            assert "known" in told["text"]
        assert told["tokens"] <= 3000
        for uri in (
            "muster://digest/many",
            "muster://digest/9",
            "muster://nothing",
            "muster://run/",
            "muster://task/abcdef",
            "file:///etc/x",
        ):
            with pytest.raises(MCPError) as refused:
                await agent.read_resource(uri)
            assert refused.value.code == -32602
            assert refused.value.data == {"uri": uri}

    at(fleet["studio"], era, work)


@proves("door.tells-of-changes")
def test_who_follows_a_resource_hears_of_its_change_and_of_no_other(fleet):
    hub, studio = fleet.hub, fleet["studio"]

    async def work(agent: Client) -> None:
        async with agent.listen(resource_subscriptions=["muster://inbox"]) as news:
            await asyncio.to_thread(hub.order, "send", "studio", {"to": "studio", "text": ["psst"]})
            async for event in news:
                assert event == ResourceUpdated(uri="muster://inbox")
                break

    at(studio, ERAS[0], work)

    heard = asyncio.Event()

    async def older() -> None:
        token = opened(studio, "older")["token"]

        async def hear(message: Any) -> None:
            if "resources/updated" in str(getattr(message, "method", "")):
                assert str(message.params.uri) == "muster://inbox"
                heard.set()

        async with client(studio, token, "legacy", message_handler=hear) as agent:
            with pytest.warns(MCPDeprecationWarning):
                await agent.subscribe_resource("muster://inbox")
            while not heard.is_set():
                await asyncio.to_thread(
                    hub.order, "send", "studio", {"to": "studio", "text": ["psst"]}
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(heard.wait(), 2)

    asyncio.run(older())


GATED = """\
muster: 1
name: gated
phases:
  wait:
    agent: shell
    do: while [ ! -e "${notes}.{gate}" ]; do sleep 0.1; done; echo done > out.txt
    deliver: out.txt
"""


@proves("door.long-calls")
@pytest.mark.parametrize("era", ERAS)
def test_a_call_that_waits_tells_how_far_it_is_and_ends_with_its_client(fleet, era):
    hub = fleet.hub
    args = {"spec": GATED.format(notes=NOTES, gate=era), "base": "", "repo": "", "values": {}}
    run = str(hub.order("run", "gated", args)["run"])

    async def work(agent: Client) -> None:
        told: list[tuple[float, Any]] = []

        async def hear(done: float, _total: Any, text: Any) -> None:
            told.append((done, text))
            # Not before somebody was told how far it is.
            await asyncio.to_thread(Path(f"{fleet.notes}.{era}").touch)

        late = await agent.call_tool("await", {"what": [run], "timeout": "1s"})
        assert late.structured_content["in_time"] is False
        # Whoever gives up leaves nothing open at the daemon.
        await asyncio.to_thread(until, lambda: links(hub) == 0, "nobody asks anything")
        waiting = asyncio.create_task(agent.call_tool("await", {"what": [run]}))
        await asyncio.to_thread(until, lambda: links(hub) > 0, "it waits at the daemon")
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await asyncio.to_thread(until, lambda: links(hub) == 0, "and not any more")
        ending = asyncio.create_task(
            agent.call_tool("await", {"what": [run], "timeout": "2m"}, progress_callback=hear)
        )
        ended = await ending
        assert [(e["what"], e["state"]) for e in ended.structured_content["ends"]] == [
            ("run", "done")
        ]
        (came,) = ended.structured_content["ends"][0]["result"]
        yielded = await agent.call_tool("result", {"task": came["task"]})
        assert yielded.structured_content["state"] == "done"
        assert all(text.startswith("wait: ") for _, text in told)
        assert [done for done, _ in told] == sorted({done for done, _ in told})

    at(hub, era, work)


def wanted(era: str) -> dict[str, Any]:
    return {"text": f"echo {era} > /dev/null", "agent": ["shell"]}


@proves("door.a-person-approves")
def test_what_needs_a_person_opens_a_page_and_goes_on_when_they_ordered_it(fleet):
    hub, seen = fleet.hub, list[str]()

    async def person(_context: Any, asked: types.ElicitRequestParams) -> types.ElicitResult:
        assert isinstance(asked, types.ElicitRequestURLParams)
        seen.append(asked.url)
        status, text = await asyncio.to_thread(page, asked.url)
        assert (status, "echo elicited &gt; /dev/null" in text) == (200, True)
        # Whoever opens the page cannot say yes there, and the agent cannot anywhere.
        assert (await asyncio.to_thread(page, asked.url, "POST"))[0] == 405
        assert (await asyncio.to_thread(page, f"{asked.url}x"))[0] == 404
        (waits,) = hub.ask("questions")
        said = await asyncio.to_thread(answer, hub, waits["task"], "yes", "--yes")
        assert said.code == 0, said
        return types.ElicitResult(action="accept")

    async def run() -> None:
        token = opened(hub, "elicits")["token"]
        async with client(hub, token, ERAS[0], elicitation_callback=person) as agent:
            found = await agent.call_tool("delegate", wanted("elicited"))
            assert not found.is_error, found
            begun = found.structured_content["run"]
            ended = await agent.call_tool("await", {"what": [begun]})
            assert [e["state"] for e in ended.structured_content["ends"]] == ["done"]
            by = {each["run"]: each["by"] for each in hub.ask("runs", {"more": True})}
            assert by[begun] == "alice"

    hub.home.put_seed("operator.seed", fleet.operator_seed)
    try:
        asyncio.run(run())
    finally:
        (hub.home.path / "operator.seed").unlink()
    assert len(seen) == 1
    status, text = page(seen[0])
    assert (status, "op:alice ordered it" in text) == (200, True)


@proves("door.a-person-approves")
@pytest.mark.parametrize("era", ERAS)
def test_a_client_that_opens_no_pages_is_told_the_address_and_the_command(fleet, era):
    hub = fleet.hub

    async def work(agent: Client) -> None:
        found = await agent.call_tool("delegate", wanted(era))
        assert not found.is_error, found
        asked = found.structured_content["proposal"]
        assert (found.structured_content["run"], asked["state"]) == ("", "open")
        assert asked["command"] == f"muster answer {asked['proposal'][:12]} yes"
        assert (await asyncio.to_thread(page, asked["url"]))[0] == 200
        # A person whose key is not here orders nothing, whoever types it.
        said = await asyncio.to_thread(answer, hub, asked["proposal"], "yes", "--yes")
        assert said.code != 0
        again = await agent.call_tool("delegate", wanted(era))
        assert again.structured_content["proposal"]["state"] == "open"

    at(hub, era, work, own=f"told-{era}")


def page(url: str, method: str = "GET") -> tuple[int, str]:
    """What somebody with a browser, or an agent with a shell, gets there."""
    host, _, path = url.removeprefix("http://").partition("/")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as asked:
        asked.request(method, f"/{path}")
        got = asked.getresponse()
        return got.status, got.read().decode()


def answer(machine: Machine, *words: str) -> Said:
    return muster(machine.home.path, "answer", *words)


def links(machine: Machine) -> int:
    """How many programs are connected to its daemon."""
    with open("/proc/net/unix", encoding="ascii") as table:
        rows = [line.split() for line in table]
    return sum(row[-1] == machine.home.socket and row[5] == "03" for row in rows)


@proves("door.goes-on")
@pytest.mark.parametrize("era", ERAS)
def test_an_agent_goes_on_when_the_door_or_the_daemon_was_killed(fleet, era):
    studio = fleet["studio"]

    async def asks(token: str) -> bool:
        async with client(studio, token, era) as agent:
            return not (await agent.call_tool("machines", {})).is_error

    token = opened(studio, "goes-on")["token"]
    assert asyncio.run(asks(token))
    os.kill(door_of(studio), signal.SIGKILL)
    assert asyncio.run(asks(token))
    studio.kill()
    studio.start()
    until(lambda: studio.ask("door")["port"], "its port is held again")
    # Tokens end with the daemon; the same session gets another one.
    with pytest.raises(BaseExceptionGroup):
        asyncio.run(asks(token))
    assert asyncio.run(asks(opened(studio, "goes-on")["token"]))
