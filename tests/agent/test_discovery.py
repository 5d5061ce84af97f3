"""What of the catalogue is here: driven how, which version, logged in; and how seldom it asks."""

import asyncio
import os

import pytest
from tests.promise import proves

from muster.agent import discovery as module
from muster.agent.catalogue import load
from muster.agent.discovery import Discovery

KNOWN = load()


def program(folder, name, body):
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\necho asked >> {folder}/{name}.asked\n{body}\n")
    file.chmod(0o755)
    return file


def asked(file):
    log = file.with_name(f"{file.name}.asked")
    return len(log.read_text().splitlines()) if log.exists() else 0


class Place:
    """A machine with a PATH and a home of its own, and the loop that its answers belong to."""

    def __init__(self, folder, *names, headless=()):
        self.bin, self.home = folder / "bin", folder / "home"
        self.home.mkdir()
        self.env = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.home)}
        self.discovery = Discovery({name: KNOWN[name] for name in names}, headless)
        self.loop = asyncio.new_event_loop()

    def found(self):
        return self.loop.run_until_complete(self.discovery.found(self.env))

    def logins(self, *names, **how):
        return self.loop.run_until_complete(self.discovery.logins(names, self.env, **how))


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path, "claude", "codex", "gemini")
    yield made
    made.loop.close()


@proves("agent.discover", "agent.headless-without-adapter")
@pytest.mark.parametrize("said", ["2.1.332 (Claude Code)", "v2.1.332", "no idea"])
def test_an_agent_is_found_with_its_version_and_how_it_is_driven(place, said):
    claude = program(place.bin, "claude", f"echo '{said}'")
    version = "2.1.332" if "2" in said else ""
    assert place.found()["claude"] == (str(claude), version, "headless")
    program(place.bin, "claude-agent-acp", "exit 0")
    program(place.bin, "node", "echo v24.1.0")
    assert place.found()["claude"].driver == "acp"
    program(place.bin, "node", "echo v20.0.0 # older")
    assert place.found()["claude"].driver == "headless"


@proves("agent.asked-seldom")
def test_a_program_is_asked_again_when_its_file_changes_and_not_before(place):
    claude = program(place.bin, "claude", "echo 1.0.0")
    place.found()
    assert place.found()["claude"].version == "1.0.0"
    assert asked(claude) == 1
    program(place.bin, "claude", "echo 2.0.0 # another one")
    assert place.found()["claude"].version == "2.0.0"


@proves("agent.asked-seldom")
def test_a_program_that_hangs_is_asked_with_a_bound(place, monkeypatch):
    monkeypatch.setattr(module, "PROBE_S_MAX", 0.3)
    program(place.bin, "claude", "sleep 97 & exec sleep 98")
    assert place.found()["claude"].version == ""


@proves("task.logins-are-facts")
@pytest.mark.parametrize(("code", "login"), [(0, True), (1, False), (64, False)])
def test_a_program_that_can_be_asked_for_its_login_is_asked_where_no_file_tells(place, code, login):
    claude = program(place.bin, "claude", f'[ "$1 $2" = "auth status" ] && exit {code}; exit 9')
    assert place.logins("claude") == {"claude": login}
    before = asked(claude)
    assert place.logins("claude") == {"claude": login}
    assert asked(claude) == before
    place.logins("claude", anew=True)
    assert asked(claude) == before + 1
    place.env["ANTHROPIC_API_KEY"] = "set"
    assert place.logins("claude", anew=True) == {"claude": True}
    assert asked(claude) == before + 1, "a key that is set needs no program"


@proves("task.logins-are-facts")
def test_an_agent_of_which_nobody_knows_is_left_out(place, monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert place.logins("gemini", "nobody") == {}, "gemini's account may lie in a keychain"


@proves("agent.login-refused")
def test_who_was_refused_is_not_logged_in_until_the_login_changes_or_it_succeeds(place):
    program(place.bin, "codex", "exit 0")
    login = place.home / ".codex" / "auth.json"
    login.parent.mkdir()
    login.write_text("{}")
    assert place.logins("codex") == {"codex": True}
    place.discovery.refused("codex", place.env)
    assert place.logins("codex", anew=True) == {"codex": False}
    os.utime(login, ns=(1, 1))
    assert place.logins("codex") == {"codex": True}
    place.discovery.refused("codex", place.env)
    place.discovery.succeeded("codex")
    assert place.logins("codex") == {"codex": True}
    place.discovery.refused("codex", place.env)
    place.env["OPENAI_API_KEY"] = "another"
    assert place.logins("codex") == {"codex": True}
