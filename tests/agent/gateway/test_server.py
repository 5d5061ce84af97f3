"""A gateway on loopback: what passes, what is streamed, what is refused, and what is told."""

import asyncio
import gc
import json
import socket
import struct

import pytest
import uvloop
from tests.agent.gateway.stage import (
    END,
    KEY,
    MESSAGE,
    MODEL,
    START,
    STREAM_HEAD,
    chunk,
    event,
    request,
    staged,
    whole,
)
from tests.agent.world import until
from tests.promise import proves

from muster.agent.gateway import forward, server
from muster.agent.gateway.key import Key
from muster.agent.gateway.meter import Limits
from muster.agent.gateway.usage import Usage
from muster.errors import Broken


async def answers(model):
    """Every request by a whole message."""
    while True:
        await model.request()
        await model.send(whole())


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True, params=LOOPS)
def _loop(request):
    """The daemon runs on uvloop where there is one."""
    run.loop = LOOPS[request.param]


def run(scenario):
    with asyncio.Runner(loop_factory=run.loop) as runner:
        return runner.run(scenario)


run.loop = asyncio.new_event_loop


@proves("gateway.key-outside")
def test_the_real_key_stands_in_the_place_of_whatever_the_client_sent():
    seen = []

    async def answer(model):
        seen.append(await model.request())
        await model.send(whole())

    async def go():
        async with staged(answer) as stage:
            status, head, body = await stage.ask(
                headers=[
                    "authorization: Bearer mine", "cookie: a=b", "x-forwarded-for: 1.2.3.4",
                    "anthropic-version: 2023-06-01", "accept-encoding: gzip, br", "x-other: 1",
                    "x-http-method-override: DELETE",
                ]
            )  # fmt: skip
            return status, head, body

    status, head, body = run(go())
    (asked, sent) = seen[0]
    lines = asked.decode().lower().split("\r\n")
    assert (status, json.loads(body)) == (200, MESSAGE)
    assert lines[0] == "post /v1/messages http/1.1"
    assert [line for line in lines if "key" in line] == [f"x-api-key: {KEY}"]
    assert "anthropic-version: 2023-06-01" in lines
    assert "accept-encoding: identity" in lines
    for dropped in ("mine", "cookie", "forwarded", "gzip", "x-other", "override", "placeholder"):
        assert dropped not in asked.decode().lower()
    assert json.loads(sent)["model"] == MODEL
    assert KEY.encode() not in head + body


@proves("gateway.key-outside")
@pytest.mark.parametrize(
    ("api", "path", "custom", "wanted"),
    [
        ("anthropic", "/v1/messages", "authorization", f"authorization: bearer {KEY}"),
        ("openai", "/v1/responses", "", f"authorization: bearer {KEY}"),
        ("google", "/v1beta/models/g:generateContent?key=mine&alt=sse&x=1", "", f"x-goog-api-key: {KEY}"),
    ],
)  # fmt: skip
def test_each_api_has_its_key_in_its_own_place(api, path, custom, wanted):
    seen = []

    async def answer(model):
        seen.append(await model.request())
        await model.send(whole(body={}))

    async def go():
        async with staged(answer, api=api, base="/there", key=Key(KEY, custom)) as stage:
            return await stage.ask({"model": "m", "max_tokens": 4}, path=path)

    assert run(go())[0] == 200
    lines = seen[0][0].decode().lower().split("\r\n")
    below = {
        "openai": "/there/responses",
        "google": "/there/v1beta/models/g:generatecontent?alt=sse",
    }
    assert lines[0] == f"post {below.get(api, '/there/v1/messages')} http/1.1"
    assert wanted in lines
    assert sum(KEY in line for line in lines) == 1


@proves("gateway.key-outside")
def test_the_key_is_in_no_representation_and_no_error():
    key = Key(KEY)
    made = server.Gateway(None, "http://127.0.0.1:1", key, _Follower(), print)
    said = repr(key) + str(key) + repr([key]) + str(vars(made)) + repr(vars(made._forward))
    assert KEY not in said
    with pytest.raises(Broken) as raised:
        Key(f"{KEY}\r\nx: y")
    assert KEY not in str(raised.value)


class _Follower:
    def follow(self, told):
        pass


@proves("gateway.key-outside")
def test_a_server_that_quotes_the_key_in_an_error_or_a_header_does_not_tell_it():
    async def answer(model):
        await model.request()
        body = {"error": {"message": f"Incorrect API key provided: {KEY}."}}
        await model.send(whole(401, body, headers=[f"x-you-said: {KEY}"]))

    async def go():
        async with staged(answer) as stage:
            said = await stage.ask()
            return said, await stage.told_of(1), stage

    (status, head, body), told, stage = run(go())
    assert status == 401
    assert KEY.encode() not in head + body
    assert b"provided: [key]." in body
    assert (told[0].ending, told[0].status, told[0].usage) == ("answered", 401, Usage())
    assert stage.meter.used == Usage(), "a server that refused has done nothing"


@proves("gateway.streams")
def test_each_event_goes_on_before_the_next_is_there():
    """The model waits for the client to have seen what it said."""
    turn = asyncio.Event

    async def go():
        seen = turn()

        async def answer(model):
            await model.request()
            await model.send(STREAM_HEAD + chunk(event(START)))
            await seen.wait()
            await model.send(chunk(event(END)) + b"0\r\n\r\n")

        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(request(stream=True))
            first = await client.until(b"\n\n\r\n")
            seen.set()
            rest = await client.until(b"0\r\n\r\n")
            told = await stage.told_of(1)
            return first, rest, told[0], stage.meter

    first, rest, told, meter = run(go())
    assert event(START) in first
    assert event(END) in rest
    assert b"request-id: req_7" in first
    assert told.usage == meter.used == Usage(input=10, output=5)
    assert (told.ending, told.status, told.estimated) == ("answered", 200, False)
    assert (told.model, told.answered, told.id, told.request_id) == (MODEL, MODEL, "msg_1", "req_7")
    assert told.got_bytes == len(event(START) + event(END))
    assert told.usd_millionths == 10 * 2 + 5 * 10
    assert 0 <= told.first_ms <= told.ms
    assert meter.running == 0


@proves("gateway.streams")
def test_half_an_event_goes_on_as_it_is():
    async def go():
        seen = asyncio.Event()

        async def answer(model):
            await model.request()
            await model.send(STREAM_HEAD + chunk(event(START)[:20]))
            await seen.wait()
            await model.send(chunk(event(START)[20:]) + chunk(event(END)) + b"0\r\n\r\n")

        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(request(stream=True))
            await client.until(event(START)[:20])
            seen.set()
            await client.until(b"0\r\n\r\n")
            return await stage.told_of(1)

    assert run(go())[0].usage == Usage(input=10, output=5)


@proves("gateway.streams")
def test_a_client_that_has_said_all_that_it_says_is_answered():
    async def go():
        async with staged(answers) as stage:
            client = await stage.client()
            await client.send(request())
            client.writer.write_eof()
            return await client.answer()

    assert run(go())[0] == 200


@proves("gateway.streams")
def test_one_connection_has_many_calls_and_the_second_may_be_sent_at_once():
    async def go():
        async with staged(answers) as stage:
            client = await stage.client()
            await client.send(request() + request())
            first, second = await client.answer(), await client.answer()
            await client.send(request(b"", method="GET", path="/v1/models"))
            third = await client.answer()
            await stage.told_of(3)
            return [each[0] for each in (first, second, third)], stage.meter

    statuses, meter = run(go())
    assert statuses == [200, 200, 200]
    assert meter.used == Usage(input=20, output=10), "a list of models costs nothing"


@proves("gateway.streams")
@pytest.mark.parametrize("body", [b"", b"x" * 5_000_000])
def test_an_answer_of_any_size_comes_whole(body):
    async def answer(model):
        await model.request()
        await model.send(whole(body=body))

    async def go():
        async with staged(answer) as stage:
            return await stage.ask(), await stage.told_of(1)

    (_, _, got), told = run(go())
    assert got == body
    assert told[0].estimated


# --- who hangs up


@proves("gateway.hangs-up")
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_is_gone_takes_its_call_of_the_model_with_it(how):
    async def go():
        begun, ended = asyncio.Event(), asyncio.Event()

        async def answer(model):
            await model.request()
            await model.send(STREAM_HEAD + chunk(event(START)))
            begun.set()
            try:
                while True:
                    await model.send(chunk(event({"type": "ping", "filler": "x" * 10_000})))
                    await asyncio.sleep(0)
            finally:
                ended.set()

        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(request(stream=True))
            await begun.wait()
            if how == "reset":
                client.reset()
            else:
                client.writer.close()
            await asyncio.wait_for(ended.wait(), 20)
            told = await stage.told_of(1)
            return told[0], stage.meter

    told, meter = run(go())
    assert told.ending == "left"
    assert told.estimated
    assert told.usage.input == 10
    assert (meter.used, meter.running) == (told.usage, 0)


@proves("gateway.hangs-up")
def test_a_client_that_is_reset_while_nothing_has_been_answered_takes_its_call_with_it():
    async def go():
        asked, ended = asyncio.Event(), asyncio.Event()

        async def answer(model):
            await model.request()
            asked.set()
            await model.all()
            ended.set()

        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(request())
            await asked.wait()
            linger = struct.pack("ii", 1, 0)
            client.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            client.reset()
            await asyncio.wait_for(ended.wait(), 20)
            told = await stage.told_of(1)
            return told[0], stage.counts

    told, counts = run(go())
    assert (told.ending, told.status, told.estimated) == ("left", 0, True)
    assert told.usage.prompt > 0
    assert counts["gateway-left"] == 1


@proves("gateway.stalls")
def test_a_model_that_says_nothing_is_hung_up_on_and_told():
    async def go():
        ended = asyncio.Event()

        async def answer(model):
            await model.request()
            await model.all()
            ended.set()

        async with staged(answer, stall_s=0.05) as stage:
            said = await stage.ask()
            await asyncio.wait_for(ended.wait(), 20)
            return said, await stage.told_of(1), stage.counts

    (status, _, body), told, counts = run(go())
    assert status == 504
    assert "said nothing for 0.05 seconds" in json.loads(body)["error"]["message"]
    assert (told[0].ending, told[0].estimated) == ("stalled", True)
    assert counts["gateway-stalled"] == 1


@proves("gateway.stalls")
def test_one_that_stops_in_the_middle_leaves_an_answer_that_is_seen_to_be_cut():
    async def answer(model):
        await model.request()
        await model.send(STREAM_HEAD + chunk(event(START)))
        await model.all()

    async def go():
        async with staged(answer, stall_s=0.1) as stage:
            client = await stage.client()
            await client.send(request(stream=True))
            said = await client.all()
            return said, await stage.told_of(1)

    said, told = run(go())
    assert event(START) in said
    assert not said.endswith(b"0\r\n\r\n")
    assert (told[0].ending, told[0].usage.input, told[0].estimated) == ("stalled", 10, True)


@proves("gateway.stalls")
def test_an_agent_that_does_not_read_is_hung_up_on():
    async def answer(model):
        await model.request()
        await model.send(STREAM_HEAD)
        while True:
            await model.send(chunk(b"x" * 100_000))

    async def go():
        async with staged(answer, stall_s=0.2) as stage:
            client = await stage.client()
            client.writer.transport.pause_reading()
            await client.send(request(stream=True))
            return await stage.told_of(1)

    assert run(go())[0].ending == "slow"


@proves("gateway.hangs-up")
def test_closing_the_gateway_ends_and_tells_every_call():
    async def go():
        asked = asyncio.Event()

        async def answer(model):
            await model.request()
            asked.set()
            await model.all()

        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(request())
            await asked.wait()
            await stage.gateway.close()
            told, running = list(stage.told), stage.meter.running
            with pytest.raises(ConnectionError):
                await stage.client()
            return told, running

    told, running = run(go())
    assert [each.ending for each in told] == ["left"]
    assert running == 0


# --- the budget


@proves("gateway.budget", "gateway.refusal")
@pytest.mark.parametrize("api", ["anthropic", "openai", "google"])
def test_a_spent_budget_refuses_in_the_api_s_form_and_asks_nobody(api):
    path = {"openai": "/v1/responses", "google": "/v1beta/models/m:generateContent"}
    asked = []

    async def answer(model):
        asked.append(await model.request())

    async def go():
        async with staged(answer, api=api, limits=Limits(tokens=10)) as stage:
            call = stage.meter.reserve("m")
            stage.meter.settle(call, Usage(input=10))
            said = await stage.ask({"model": "m"}, path=path.get(api, "/v1/messages"))
            return said, await stage.told_of(1), stage.counts

    (status, head, body), told, counts = run(go())
    assert status == 400
    assert b"retry-after" not in head.lower()
    assert (
        "the budget of this task is spent: 10 of 10 tokens" in json.loads(body)["error"]["message"]
    )
    assert asked == []
    assert (told[0].ending, told[0].usage) == ("spent", Usage())
    assert counts == {"gateway-spent": 1}


@proves("gateway.budget")
def test_the_output_that_is_asked_for_is_what_is_left():
    asked = []

    async def answer(model):
        asked.append(await model.request())
        await model.send(whole())

    async def go():
        async with staged(answer, limits=Limits(tokens=1_000)) as stage:
            await stage.ask(
                b'{"model": "%s", "max_tokens": 32000, "keep": [1.50, 1e2]}' % MODEL.encode()
            )
            return await stage.told_of(1)

    told = run(go())
    assert json.loads(asked[0][1]) == {"model": MODEL, "max_tokens": 1_000, "keep": [1.5, 100]}
    assert b"[1.50, 1e2]" in asked[0][1], "what is not changed is as it was written"
    assert told[0].output_max == 1_000


@proves("gateway.budget")
def test_a_call_that_finds_no_room_waits_for_one_that_runs():
    async def go():
        go_on, asked = asyncio.Event(), []

        async def answer(model):
            asked.append(await model.request())
            if len(asked) == 1:
                await go_on.wait()
            await model.send(whole())

        async with staged(answer, limits=Limits(tokens=1_000)) as stage:
            body = {"model": MODEL, "max_tokens": 5_000}
            first = asyncio.create_task(stage.ask(body))
            await until(lambda: asked)
            second = asyncio.create_task(stage.ask(body))
            await until(lambda: len(stage.gateway._connections) == 2)
            waited = len(asked)
            go_on.set()
            statuses = [(await each)[0] for each in (first, second)]
            return waited, statuses, [json.loads(raw)["max_tokens"] for _, raw in asked]

    waited, statuses, most = run(go())
    assert (waited, statuses, most) == (1, [200, 200], [1_000, 985])


@proves("gateway.budget")
def test_thirty_calls_at_once_pass_the_limit_by_no_more_than_one_of_each_that_runs():
    async def go():
        most = []

        async def answer(model):
            await model.request()
            most.append(stage.meter.running)
            await model.send(whole())

        async with staged(answer, limits=Limits(tokens=100)) as stage:
            body = {"model": MODEL, "max_tokens": 20}
            said = await asyncio.gather(*(stage.ask(body) for _ in range(30)))
            return [each[0] for each in said], max(most), stage.meter

    statuses, most, meter = run(go())
    assert set(statuses) == {200, 400}
    assert meter.used.tokens == statuses.count(200) * 15
    assert 80 <= meter.used.tokens <= 100 + most * 15
    assert most <= 5, "five times twenty tokens are all that there is"
    assert meter.running == 0


@proves("gateway.hangs-up")
def test_a_gateway_that_is_closed_while_its_connections_end_leaves_none_open():
    """What a connection does at its end is cut short as well."""

    def open_now():
        # By its own type: what is asked for its class may be a proxy of what is gone.
        writers = [w for w in gc.get_objects() if issubclass(type(w), asyncio.StreamWriter)]
        return {id(w): w for w in writers if not w.transport.is_closing()}

    async def go():
        # What tests before this one left open is theirs.
        before = open_now()
        async with staged(answers) as stage:
            await asyncio.gather(*(stage.ask() for _ in range(20)))
            begun = {i: w for i, w in open_now().items() if i not in before}
        return [w.get_extra_info("peername") for i, w in open_now().items() if i in begun]

    assert run(go()) == []


# --- hostile clients


@proves("gateway.hostile")
@pytest.mark.parametrize(
    "raw",
    [
        b"GET http://model.invalid/v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT model.invalid:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET //v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/../v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/models/..%2f..%2ffiles HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\nhost: x\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"DELETE /v1/models/a HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/messages/batches HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
    ],
)  # fmt: skip
def test_what_is_no_call_of_the_api_is_refused_and_asks_nobody(raw):
    asked = []

    async def answer(model):
        asked.append(await model.request())

    async def go():
        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(raw)
            client.writer.write_eof()
            return await client.all(), await stage.told_of(1)

    said, told = run(go())
    assert said.startswith(b"HTTP/1.1 404 ")
    assert b"retry-after" not in said.lower()
    assert (told[0].ending, told[0].path) == ("refused", "")
    assert asked == []


TWICE = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n"
HIDDEN = b"GET /v1/files HTTP/1.1\r\nhost: x\r\n\r\n"


@proves("gateway.hostile")
@pytest.mark.parametrize(
    "raw",
    [
        TWICE + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        TWICE + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}" + HIDDEN,
        TWICE + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        TWICE + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
        TWICE + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        TWICE + b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n" + HIDDEN,
        TWICE + b"transfer-encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
        TWICE + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffffffff\r\n{}" + HIDDEN,
        TWICE + b"transfer-encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n" + HIDDEN,
        TWICE + b"content-length: -2\r\n\r\n{}" + HIDDEN,
        TWICE + b"content-length: +2\r\n\r\n{}" + HIDDEN,
        TWICE + b"a: b\x00c\r\n\r\n" + HIDDEN,
        TWICE + b"content-length: 2\r\n\r\n[]",
        TWICE + b"content-length: 1\r\n\r\n{",
        TWICE + b"content-length: 2\r\n\r\n{}",
        TWICE + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
        TWICE + b"a: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /v1/models\r\n\r\n", b"\r\n" * 50_000, b"\x16\x03\x01\x02\x00\x01\x00\x01", b"PRI * HTTP/2.0\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
    ],
)  # fmt: skip
def test_what_is_no_whole_request_is_refused_and_hides_none(raw):
    asked = []

    async def answer(model):
        asked.append(await model.request())

    async def go():
        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(raw)
            client.writer.write_eof()
            said = await client.all()
            alive = await stage.client()
            await alive.send(b"GET /v1/x HTTP/1.1\r\nhost: x\r\n\r\n")
            return said, await alive.answer(), stage.counts

    said, alive, counts = run(go())
    # HTTP/2 begins as a request of HTTP/1.1 for nothing that there is.
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ")) or not said
    assert b"/v1/files" not in said
    assert asked == []
    assert alive[0] == 404, "the gateway goes on"
    assert counts["gateway-failed"] == 0


@proves("gateway.hostile")
def test_the_framing_of_a_client_is_not_the_framing_of_its_call():
    """Chunks, their extensions and what trails them end here."""
    seen = []

    async def answer(model):
        seen.append(await model.request())
        await model.send(whole())

    raw = json.dumps({"model": MODEL, "max_tokens": 3}).encode()
    sent = b"".join(b"1;a=%s\r\n%c\r\n" % (b"x" * 50, byte) for byte in raw)

    async def go():
        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(
                TWICE
                + b"transfer-encoding: chunked\r\ntrailer: x-api-key\r\n\r\n"
                + sent
                + b"0\r\nx-api-key: mine\r\n\r\n"
            )
            return await client.answer()

    assert run(go())[0] == 200
    head, body = seen[0]
    assert json.loads(body) == json.loads(raw)
    assert b"chunked" not in head
    assert b"trailer" not in head
    assert b"mine" not in head + body


@proves("gateway.hostile")
def test_a_request_without_end_is_refused_before_it_is_in_memory(monkeypatch):
    monkeypatch.setattr(forward, "BODY_BYTES_MAX", 100_000)

    async def go():
        async with staged(answers) as stage:
            client = await stage.client()
            await client.send(TWICE + b"content-length: 99999999\r\n\r\n" + b" " * 300_000)
            status, head, _ = await client.answer()
            told = await stage.told_of(1)
            return status, head, told[0]

    status, head, told = run(go())
    assert status == 413
    assert b"connection: close" in head.lower()
    assert (told.ending, told.sent_bytes) == ("refused", 0)


@proves("gateway.hostile")
def test_a_crowd_of_connections_is_bounded_and_keeps_nobody_out_for_ever(monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)

    async def go():
        async with staged(answers) as stage:
            crowd = [await stage.client() for _ in range(3)]
            await until(lambda: len(stage.gateway._connections) == 3)
            late = await stage.client()
            refused = await late.all()
            for each in crowd:
                each.reset()
            await until(lambda: not stage.gateway._connections)
            return refused, await stage.ask(), stage.counts

    refused, said, counts = run(go())
    assert refused == b""
    assert said[0] == 200
    assert counts["gateway-crowded"] == 1


@proves("gateway.hostile")
def test_a_connection_for_which_the_daemon_has_no_descriptor_to_spare_is_not_taken():
    spare = [True, False, True]
    numbers = []

    def is_spare(number):
        numbers.append(number)
        return spare.pop(0)

    async def go():
        async with staged(answers, is_spare=is_spare) as stage:
            first = await stage.ask()
            refused = await (await stage.client()).all()
            return first[0], refused, (await stage.ask())[0], stage.counts

    first, refused, third, counts = run(go())
    assert (first, refused, third) == (200, b"", 200)
    assert counts["gateway-crowded"] == 1
    assert min(numbers) > 2


@proves("gateway.hostile")
def test_a_head_without_end_is_refused_while_it_is_sent():
    async def go():
        async with staged(answers) as stage:
            client = await stage.client()
            await client.send(TWICE + b"a: " + b"x" * 200_000)
            return await client.answer()

    assert run(go())[0] == 400


@proves("gateway.hostile")
def test_a_request_that_cannot_be_read_is_not_passed_on():
    asked = []

    async def answer(model):
        asked.append(await model.request())

    async def go():
        async with staged(answer) as stage:
            return await stage.ask(headers=["content-encoding: gzip"])

    status, _, body = run(go())
    assert (status, asked) == (400, [])
    assert "must not be compressed" in json.loads(body)["error"]["message"]


# --- hostile servers


@proves("gateway.hostile")
def test_a_server_whose_head_has_no_end_is_hung_up_on_while_it_is_sent():
    async def answer(model):
        await model.request()
        await model.send(b"HTTP/1.1 200 OK\r\na: " + b"x" * 200_000)
        await model.all()

    async def go():
        async with staged(answer) as stage:
            return await stage.ask(), await stage.told_of(1)

    (status, _, _), told = run(go())
    assert (status, told[0].ending) == (502, "broken")


@proves("gateway.hostile")
@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\x00\xff\x00\xff", b"HTTP/1.1 200 OK\r\n", b"HTTP/0.9 hello", b"220 mail ready\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\na: " + b"x" * 200_000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50, b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nhello",
        b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere.invalid/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /v1/other\r\ncontent-length: 0\r\n\r\n",
    ],
)  # fmt: skip
def test_a_server_that_does_not_answer_as_one_is_a_failure_that_says_so(raw):
    async def answer(model):
        await model.request()
        await model.send(raw)

    async def go():
        async with staged(answer) as stage:
            return await stage.ask(), await stage.told_of(1), stage.counts

    (status, head, body), told, counts = run(go())
    assert status == 502
    assert b"location" not in head.lower()
    assert json.loads(body)["error"]["message"].startswith("muster: 127.0.0.1:")
    assert told[0].ending == "broken"
    assert counts["gateway-failed"] == 0


@proves("gateway.hostile", "gateway.never-free")
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nshort",
        STREAM_HEAD + b"5\r\nhello\r\n",
        STREAM_HEAD + b"zz\r\nhello\r\n",
        STREAM_HEAD + b"5\r\nhelloXX0\r\n\r\n",
    ],
)
def test_an_answer_that_is_cut_is_not_ended_for_its_client(raw):
    async def answer(model):
        await model.request()
        await model.send(raw)

    async def go():
        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(request(stream=True))
            return await client.all(), await stage.told_of(1)

    said, told = run(go())
    assert said.startswith(b"HTTP/1.1 200 ")
    assert not said.endswith(b"0\r\n\r\n")
    assert (told[0].ending, told[0].estimated) == ("broken", True)
    assert told[0].usage.tokens > 0


@proves("gateway.hostile")
def test_what_a_server_says_beyond_its_length_is_not_passed_on():
    async def answer(model):
        await model.request()
        await model.send(whole(body=b"{}") + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")

    async def go():
        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(request())
            first = await client.answer()
            client.writer.write_eof()
            return first, await client.all()

    (status, _, body), rest = run(go())
    assert (status, body, rest) == (200, b"{}", b"")


@proves("gateway.hostile")
def test_an_answer_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(forward, "ANSWER_BYTES_MAX", 100_000)

    async def answer(model):
        await model.request()
        await model.send(STREAM_HEAD)
        while True:
            await model.send(chunk(b"data: x\n\n" * 1_000))

    async def go():
        async with staged(answer) as stage:
            client = await stage.client()
            await client.send(request(stream=True))
            return await client.all(), await stage.told_of(1)

    said, told = run(go())
    assert len(said) < 1_000_000
    assert told[0].ending == "broken"


@proves("gateway.hostile")
def test_an_error_without_end_is_cut():
    async def answer(model):
        await model.request()
        await model.send(b"HTTP/1.1 500 Oh\r\ncontent-type: text/plain\r\n\r\n")
        while True:
            await model.send(b"x" * 100_000)

    async def go():
        async with staged(answer) as stage:
            return await stage.ask()

    status, _, body = run(go())
    assert (status, len(body)) == (500, 256 * 1024)


@proves("gateway.hostile")
def test_a_server_that_is_not_there_is_a_failure_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def go():
        async with staged(answers, url=f"http://127.0.0.1:{port}") as stage:
            return await stage.ask(), await stage.told_of(1), stage.meter

    (status, _, body), told, meter = run(go())
    assert status == 502
    assert f"127.0.0.1:{port} is not reached" in json.loads(body)["error"]["message"]
    assert told[0].ending == "unreachable"
    assert meter.used == Usage(), "nobody was asked"


@proves("gateway.counted")
def test_nothing_of_what_was_asked_or_answered_is_told():
    async def answer(model):
        await model.request()
        await model.send(whole(body={**MESSAGE, "content": [{"text": "an-answer"}]}))

    async def go():
        async with staged(answer) as stage:
            body = {"model": MODEL, "max_tokens": 5, "messages": ["a-prompt"], "system": "a-prompt"}
            await stage.ask(body)
            return await stage.told_of(1)

    said = repr(run(go()))
    assert "a-prompt" not in said
    assert "an-answer" not in said
    assert KEY not in said
