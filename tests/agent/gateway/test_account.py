"""What is told of the calls of an attempt, and what of a flood of them."""

import asyncio
import json
import socket

from tests.agent.gateway.stage import KEY, MODEL, Peer, request, whole
from tests.promise import proves

from muster.agent.gateway.account import KINDS_MAX, USED_TOLD_MAX, Account
from muster.agent.gateway.apis import APIS
from muster.agent.gateway.call import Call
from muster.agent.gateway.key import Key
from muster.agent.gateway.meter import Limits
from muster.agent.gateway.usage import Usage
from muster.agent.gateways import Gateways, Plan, Planned


def call(ending="answered", status=200, **more):
    return Call(api="anthropic", method="POST", path="/v1/messages", ending=ending, status=status, **more)  # fmt: skip


@proves("gateway.told-in-sums")
def test_what_used_something_is_told_one_by_one_and_then_in_a_sum_that_loses_nothing():
    told: list[Call] = []
    account = Account(told.append)
    for number in range(USED_TOLD_MAX + 50):
        account.add(
            call(
                model=MODEL, id=f"m{number}", usage=Usage(input=2, cache_read=3), usd_millionths=5,
                sent_bytes=7, got_bytes=11, ms=13, estimated=number == USED_TOLD_MAX + 9,
            )
        )  # fmt: skip
    assert len(told) == USED_TOLD_MAX
    account.close()
    account.close()
    assert told[USED_TOLD_MAX:] == [
        call(
            model=MODEL, usage=Usage(input=100, cache_read=150), usd_millionths=250,
            sent_bytes=350, got_bytes=550, ms=650, estimated=True, times=50,
        )
    ]  # fmt: skip


@proves("gateway.told-in-sums")
def test_of_what_used_nothing_the_first_of_each_kind_is_told():
    told: list[Call] = []
    account = Account(told.append)
    for number in range(1_000):
        account.add(call("refused", 404, why=f"/{number} is none"))
        account.add(call("spent", 400, why="the budget is spent"))
        account.add(call("answered", 529))
    first = [(each.ending, each.status) for each in told]
    assert first == [("refused", 404), ("spent", 400), ("answered", 529)]
    account.close()
    sums = {(each.ending, each.status): (each.times, each.why) for each in told[3:]}
    assert sums == {
        ("refused", 404): (999, ""),
        ("spent", 400): (999, "the budget is spent"),
        ("answered", 529): (999, ""),
    }


@proves("gateway.told-in-sums")
def test_a_flood_of_models_and_reasons_is_told_in_no_more_sums_than_may_be():
    told: list[Call] = []
    account = Account(told.append)
    for number in range(10_000):
        account.add(call("spent", 400, model=f"m{number}", why=f"{number}"))
        account.add(call(status=200 + number, model=f"m{number}", usage=Usage(output=1)))
    account.close()
    assert len(told) <= USED_TOLD_MAX + 2 * KINDS_MAX + len(("spent", "answered"))
    assert sum(each.times for each in told) == 20_000
    assert sum(each.usage.output for each in told) == 10_000


@proves("gateway.told-in-sums")
def test_an_agent_that_asks_for_nothing_without_end_fills_no_journal():
    told: list[Call] = []

    async def go():
        async def answer(reader, writer):
            await Peer(reader, writer).request()
            writer.write(whole())
            writer.close()

        model = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = model.sockets[0].getsockname()[1]
        planned = Planned(1, APIS["anthropic"], f"http://127.0.0.1:{port}", Key(KEY), ())
        plan = Plan((planned,), {}, frozenset(), {}, ())
        made = Gateways(
            plan, Limits(), "2026-11-28", told.append, env={}, count=lambda _: None, stall_s=5
        )
        sock = socket.create_server(("127.0.0.1", 0))
        at = sock.getsockname()
        await made.serve({1: sock})

        async def ask(**how):
            client = Peer(*await asyncio.open_connection(*at))
            await client.send(request(**how))
            answered = await client.answer()
            client.writer.close()
            await client.writer.wait_closed()
            return answered

        refused = {(await ask(method="GET", path=f"/nope/{n}"))[0] for n in range(100)}
        status, _, body = await ask()
        before = [each.ending for each in told]
        await made.close()
        model.close()
        await model.wait_closed()
        return refused, status, json.loads(body)["model"], before

    assert asyncio.run(go()) == ({404}, 200, MODEL, ["refused", "answered"])
    assert [(each.ending, each.times) for each in told[2:]] == [("refused", 99)]
