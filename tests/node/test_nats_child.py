"""The process of a NATS server: what it said last is its own."""

import asyncio
from pathlib import Path

import pytest
from tests.channel.nats_server import nats_server
from tests.channel.rigs import run
from tests.promise import proves

from muster.errors import Broken
from muster.node.engine.child import last_words, running


@proves("node.nats-program")
def test_a_server_that_does_not_begin_says_why_and_not_what_one_before_it_said(tmp_path: Path):
    log, configured = tmp_path / "server.log", tmp_path / "server.json"
    log.write_text("[1] [ERR] of an earlier one\n")
    configured.write_text('{"nonsense_of_ours": 1}')

    async def scenario() -> None:
        async with running(nats_server(), configured, log):
            raise AssertionError("it began")

    with pytest.raises(Broken, match="nonsense_of_ours"):
        run(scenario())
    assert "earlier" not in last_words(log)
    assert last_words(tmp_path / "none") == "it said nothing"


@proves("node.nats-ends-and-begins")
def test_a_server_listens_and_is_ended_with_whoever_ran_it(tmp_path: Path):
    log, configured = tmp_path / "server.log", tmp_path / "server.json"
    configured.write_text(f'{{"listen": "127.0.0.1:-1", "ports_file_dir": "{tmp_path}"}}')

    async def scenario() -> None:
        async with running(nats_server(), configured, log) as (child, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert (await reader.read(4)) == b"INFO"
            writer.close()
            await writer.wait_closed()
        assert child.returncode is not None

    run(scenario())
