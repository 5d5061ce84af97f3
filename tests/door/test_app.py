"""What the door answers where it cannot: at once, and with whose fault it is."""

import asyncio
import os
import socket
from typing import Any

import pytest
from tests.promise import proves

from muster.door import absent, app
from muster.limits import DOOR_CALLS_MAX

TOKEN = (b"authorization", b"Bearer muster-cap1.nobody-knows-this-one")


async def asked(door: app.App, *headers: tuple[bytes, bytes], path: str = "/mcp") -> list[Any]:
    """The messages of one answer."""
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    assert await door.admit({"path": path, "headers": list(headers)}, send) is None
    return said


@proves("door.says-what-is-missing")
def test_packages_that_fail_are_told_to_everybody_who_waits_and_end_the_door(monkeypatch):
    def broken() -> Any:
        raise RuntimeError("half of it is of another version")

    async def somebody(*_: Any) -> app.Session:
        return app.Session("token", "shop-3fa9", "claude")

    async def run() -> None:
        async with app.App("/nowhere") as door:
            told = await asyncio.gather(*(asked(door, TOKEN) for _ in range(3)))
            for head, body in told:
                assert head["status"] == 503
                assert b"half of it is of another version" in body["body"]
                assert b"muster-fleet[doors]" in body["body"]
            await asyncio.wait_for(door.failed.wait(), 10)
            assert "half of it is of another version" in door.why

    monkeypatch.setattr(app, "_load", broken)
    monkeypatch.setattr(app, "whose", somebody)
    asyncio.run(run())


@proves("door.bears-a-session")
def test_too_much_at_once_and_no_daemon_are_not_said_to_be_the_fault_of_the_token():
    async def run() -> None:
        async with app.App("/nowhere") as door:
            for open_calls in (0, DOOR_CALLS_MAX):
                door._daemon._open = open_calls
                head, _ = await asked(door, TOKEN)
                assert head["status"] == 503
                assert (b"retry-after", b"1") in head["headers"]
            head, _ = await asked(door)
            assert head["status"] == 401

    asyncio.run(run())


@proves("door.says-what-is-missing")
@pytest.mark.timeout(20)
def test_what_says_that_packages_are_missing_ends_with_its_daemon_whoever_knocks():
    life, daemon = os.pipe()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with socket.create_connection(listening.getsockname()):
            os.close(daemon)
            absent.refuse(listening, life, "it is missing", for_s=600)
    os.close(life)
