"""What a machine finds out about itself for others: one of a kind at a time."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.promise import proves

from muster.errors import Broken, Conflict
from muster.verbs import reports


@proves("cli.on-others")
def test_a_report_that_is_being_made_is_not_made_a_second_time(monkeypatch):
    begun: list[str] = []
    daemon: Any = SimpleNamespace(home=SimpleNamespace(path="/x"))

    async def scenario() -> None:
        goes_on = asyncio.Event()

        async def answer(home: str, what: str, words: tuple[str, ...]) -> Any:
            begun.append(what)
            await goes_on.wait()
            return {"checks": []}

        monkeypatch.setattr(reports, "_answer", answer)
        first = asyncio.ensure_future(reports._typed(daemon, None, "doctor"))
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="at work there for somebody else"):
            await reports._typed(daemon, None, "doctor")
        other = asyncio.ensure_future(reports._typed(daemon, None, "audit", "verify"))
        await asyncio.sleep(0)
        assert begun == ["doctor", "audit verify"]
        first.cancel()
        await asyncio.wait([first])
        goes_on.set()
        await other
        await reports._typed(daemon, None, "doctor")
        assert begun[-1] == "doctor"

    asyncio.run(scenario())


@proves("cli.on-others")
@pytest.mark.parametrize("said", [b"", b"Killed", b"[]", b'{"error":{}}', b'{"error":{"exit":[]}}'])
def test_a_command_that_ends_without_an_answer_is_one_sentence(monkeypatch, said):
    async def communicate() -> tuple[bytes, bytes]:
        return b"", said

    async def end() -> None:
        """It has ended."""

    async def start(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(communicate=communicate, end=end, returncode=-9)

    monkeypatch.setattr(reports.child_process, "start", start)
    with pytest.raises(Broken, match="gave no answer there"):
        asyncio.run(reports._answer("/home", "doctor", ("doctor",)))
