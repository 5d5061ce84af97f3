"""The page of a proposal: what it shows is text, and it does nothing."""

import asyncio
from typing import Any

import pytest
from tests.promise import proves

from muster.door import page
from muster.errors import NotFound, Unreachable

KNOWN = {
    "proposal": "3fa9" * 8, "state": "open", "actor": "claude@mac1", "session": "shop-3fa9",
    "because": "it may not", "name": "handed-on", "spec": "do: true\n", "repo": "main",
    "base": "fix", "asked_ms": 1, "until_ms": 2, "run": "", "by": "",
}  # fmt: skip


class Told:
    """A daemon that answers so."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, list[Any]()

    async def ask(self, verb: str, args: Any) -> Any:
        self.asked.append((verb, args))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def got(daemon: Any, query: str = "key=ab", method: str = "GET") -> tuple[int, str]:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"method": method, "path": "/ask/3fa9", "query_string": query.encode()}
    asyncio.run(page.show(daemon, scope, send))
    return said[0]["status"], said[1]["body"].decode()


@proves("door.a-person-approves")
@pytest.mark.parametrize("field", ["actor", "session", "because", "name", "spec", "repo", "base"])
def test_no_text_of_a_proposal_is_markup_or_turns_the_page_round(field):
    evil = "</pre><script>x</script><img src=x>\"'&\u202e\x1b[2J"
    text = page.page(KNOWN | {field: evil})
    assert "<script" not in text
    assert "<img" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text


@proves("door.a-person-approves")
def test_the_page_shows_the_command_and_has_nothing_to_press():
    status, text = got(Told(KNOWN))
    assert status == 200
    assert "muster answer 3fa93fa93fa9 yes" in text
    for word in ("<form", "<button", "<input", "<script", "<a ", "http"):
        assert word not in text.replace("http-equiv", "")
    assert "muster answer" not in page.page(KNOWN | {"state": "refused", "by": "op:alice"})
    ordered = page.page(KNOWN | {"state": "ordered", "by": "op:alice", "run": "1ae7"})
    assert "op:alice ordered it: run <code>1ae7</code>" in ordered


@proves("door.a-person-approves")
def test_without_its_key_there_is_no_page_and_nothing_is_told_to_it():
    for query in ("", "key=", "key=a&key=b", "key=" + "a" * 65, "other=1"):
        daemon = Told(KNOWN)
        assert got(daemon, query)[0] == 404
        assert daemon.asked == []
    assert got(Told(NotFound("no")))[0] == 404
    assert got(Told(Unreachable("gone")))[0] == 503
    for method in ("POST", "PUT", "DELETE"):
        daemon = Told(KNOWN)
        assert got(daemon, method=method)[0] == 405
        assert daemon.asked == []
