"""Which session a program's server of tools is of: the one that the program's hooks tell."""

import json

import pytest
from tests.node.cores import Cores, One
from tests.node.test_sessions import listed, opened
from tests.promise import proves

PID = 4711


@pytest.fixture
def studio() -> One:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    return world["studio"]


def hook(one: One, event: str, own: str, pid: int = PID) -> None:
    said = {"session_id": own, "cwd": "/w/shop", "hook_event_name": event}
    told = {"agent": "noop", "input": json.dumps(said).encode().hex(), "pid": pid}
    answer = one.call("hook", told)
    assert answer["ok"], answer
    one.world.pass_ms(300)


def who(one: One, token: str) -> str:
    """Whose token it is; "" for nobody's."""
    answer = one.call("session.who", {"token": token})
    return answer["value"]["own"] if answer["ok"] else ""


@proves("session.tools-are-of-the-hooks-session")
def test_a_server_of_tools_is_of_the_session_that_the_hooks_of_its_program_are_of(studio):
    hook(studio, "SessionStart", "0a1b")
    server = opened(studio, "stdio-1", pid=PID)
    assert who(studio, server["token"]) == "0a1b"
    # Another program is another one; nobody knows of one that was not told.
    assert who(studio, opened(studio, "stdio-2", pid=PID + 1)["token"]) == "stdio-2"
    assert who(studio, opened(studio, "stdio-3")["token"]) == "stdio-3"


@proves("session.tools-are-of-the-hooks-session")
def test_a_server_that_came_first_asks_anew_and_is_of_that_session_then(studio):
    early = opened(studio, "stdio-1", pid=PID)
    studio.world.pass_ms(300)
    assert who(studio, early["token"]) == "stdio-1"
    hook(studio, "SessionStart", "0a1b")
    assert who(studio, early["token"]) == ""
    assert who(studio, opened(studio, "stdio-1", pid=PID)["token"]) == "0a1b"
    assert [each["agent"] for each in listed(studio).values()] == ["noop"], "it was none"


@proves("session.tools-are-of-the-hooks-session")
def test_a_program_that_goes_on_to_another_session_takes_its_tools_along(studio):
    hook(studio, "SessionStart", "0a1b")
    token = opened(studio, "stdio-1", pid=PID)["token"]
    hook(studio, "SessionStart", "2c3d")
    assert who(studio, token) == ""
    assert who(studio, opened(studio, "stdio-1", pid=PID)["token"]) == "2c3d"
    hook(studio, "UserPromptSubmit", "2c3d")
    # The one before was the program's own, and may be resumed.
    assert len(listed(studio)) == 2
    # What ended is no session of whoever gets its number next.
    hook(studio, "SessionEnd", "2c3d")
    assert who(studio, opened(studio, "stdio-9", pid=PID)["token"]) == "stdio-9"
