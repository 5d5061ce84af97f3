"""What the requests of one attempt take of the daemon's memory, and of its time."""

import asyncio
import json

import pytest
from tests.agent.gateway.stage import KEY, MODEL, request, staged, whole
from tests.agent.world import until
from tests.promise import proves

from muster.agent.gateway import held as gateway_held
from muster.agent.gateway import names
from muster.agent.gateway.api import read_body, value_of
from muster.agent.gateway.apis import APIS
from muster.agent.gateway.held import Held
from muster.agent.gateway.http11 import Outbound
from muster.agent.gateway.key import Key
from muster.agent.gateway.meter import Limits
from muster.agent.gateways import Gateways, Plan, Planned
from muster.errors import Malformed


def long(size):
    return {"model": MODEL, "max_tokens": 9, "system": "x" * size}


@proves("gateway.held", "gateway.refusal")
def test_who_does_not_fit_beside_what_is_held_is_refused_until_that_is_sent(monkeypatch):
    monkeypatch.setattr(gateway_held, "HELD_BYTES_MAX", 100_000)
    held, while_asked = Held(), []

    async def answer(model):
        await model.request()
        await until(lambda: not held.bytes)
        while_asked.append(held.bytes)
        await model.send(whole())

    async def go():
        async with staged(answer, held=held) as stage:
            first = await stage.client()
            raw = request(long(80_000))
            await first.send(raw[:-1_000])
            await until(lambda: held.bytes > 70_000)
            refused = await stage.ask(long(50_000))
            left = await stage.client()
            await left.send(request(long(10_000))[:-1_000])
            await until(lambda: held.bytes > 85_000)
            left.reset()
            await until(lambda: held.bytes < 85_000)
            await first.send(raw[-1_000:])
            return refused, await first.answer(), await stage.ask(long(50_000)), stage.told

    (status, head, body), first, later, told = asyncio.run(go())
    assert status == 503
    assert "more than 100000 bytes on their way" in json.loads(body)["error"]["message"]
    assert b"retry" not in head.lower(), "a client tries again by itself"
    assert (first[0], later[0], while_asked) == (200, 200, [0, 0])
    assert (told[0].ending, told[0].status, held.bytes) == ("refused", 503, 0)


@proves("gateway.held")
def test_the_gateways_of_one_attempt_share_what_may_be_held():
    planned = [Planned(n, APIS["openai"], "http://127.0.0.1:9", Key(KEY), ()) for n in (1, 2)]

    async def go():
        made = Gateways(
            Plan(tuple(planned), {}, frozenset(), {}, ()), Limits(), "2026-11-28", print,
            env={}, count=print,
        )  # fmt: skip
        return {id(each._forward._held) for each in made._made.values()}

    assert len(asyncio.run(go())) == 1


@proves("gateway.held")
def test_a_request_of_many_names_is_refused_before_they_are_made():
    wide = b"{" + b",".join(b'"%d":1' % n for n in range(300_000)) + b"}"
    with pytest.raises(Malformed, match="more than 300 names"):
        read_body(wide)
    assert names._Heard.names == names.NAMES_MAX + 1, "and no more of it is read"
    same = b"{" + b",".join([b'"a":1'] * 1_000) + b"}"
    with pytest.raises(Malformed, match="more than 300 names"):
        read_body(same)


@proves("gateway.held")
def test_a_request_of_as_many_names_as_may_be_with_many_below_them_is_read():
    below = {str(n): n for n in range(5_000)}
    body = {str(n): below if n == 7 else 1 for n in range(names.NAMES_MAX)}
    assert len(read_body(json.dumps(body).encode())) == names.NAMES_MAX
    assert not names.too_many(b"[" + b":" * 1_000)


@proves("gateway.held")
@pytest.mark.parametrize(
    ("api", "path", "name"),
    [
        ("anthropic", "/v1/messages", "model"), ("anthropic", "/v1/messages", "thinking"),
        ("openai", "/v1/chat/completions", "stream_options"), ("openai", "/v1/responses", "background"),
        ("google", "/v1beta/models/m:generateContent", "generationConfig"),
    ],
)  # fmt: skip
def test_what_is_read_of_a_request_is_short(api, path, name):
    asked = []

    async def answer(model):
        asked.append(await model.request())

    async def go():
        async with staged(answer, api=api) as stage:
            body = {"model": MODEL, "max_tokens": 9, "stream": True, name: [[]] * 100_000}
            return await stage.ask(body, path=path)

    status, _, body = asyncio.run(go())
    assert (status, asked) == (400, [])
    assert f"the {name} of the request is longer than" in json.loads(body)["error"]["message"]


def test_a_value_of_ordinary_length_is_read():
    body = read_body(json.dumps({"generationConfig": {"a": "x" * 200_000}}).encode())
    assert len(value_of(body, "generationConfig")["a"]) == 200_000


class _Writer:
    def __init__(self):
        self.pieces, self.drained = [], 0

    def write(self, data):
        self.pieces.append(data)

    async def drain(self):
        self.drained += 1


@proves("gateway.held")
def test_a_long_request_is_written_piece_by_piece():
    writer = _Writer()
    body = b"ab" * 1_000_000
    headers = [("host", "x"), ("content-length", str(len(body)))]
    asyncio.run(Outbound(None, writer).ask("POST", "/", headers, body))
    assert b"".join(writer.pieces).endswith(b"\r\n\r\n" + body)
    assert max(map(len, writer.pieces)) <= 256 * 1024
    assert writer.drained >= len(body) / (256 * 1024)
