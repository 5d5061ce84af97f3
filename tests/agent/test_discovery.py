"""What of the catalogue is here: driven how, which version, logged in; and how seldom it asks."""

import asyncio
import os
import sys

import pytest
from tests.agent.world import marked
from tests.promise import proves

from muster.agent import discovery as module
from muster.agent.catalogue import load
from muster.agent.discovery import Discovery

KNOWN = load()
HEADLESS = sorted(name for name, entry in KNOWN.items() if entry.headless)
# What a login is by its files alone, where Linux has none.
UNKNOWN = None if sys.platform == "darwin" else False


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

    def refused(self, name):
        async def refuse():
            self.discovery.refused(name, self.env)

        self.loop.run_until_complete(refuse())


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
    body = f'[ "$1 $2" = "auth status" ] && exit {code}; echo 2.1.332'
    claude = program(place.bin, "claude", body)
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
    (place.home / ".gemini").mkdir()
    (place.home / ".gemini" / "settings.json").write_text('{"selectedType": "oauth-personal"}')
    assert place.logins("gemini", "nobody") == {}, "gemini's account may lie in a keychain"


@proves("agent.login-refused")
def test_who_was_refused_is_not_logged_in_until_the_login_changes_or_it_succeeds(place):
    program(place.bin, "codex", "exit 0")
    login = place.home / ".codex" / "auth.json"
    login.parent.mkdir()
    login.write_text("{1234}")
    assert place.logins("codex") == {"codex": True}
    place.refused("codex")
    assert place.logins("codex", anew=True) == {"codex": False}
    os.utime(login, ns=(1, 1))
    assert place.logins("codex") == {"codex": True}
    place.refused("codex")
    place.discovery.succeeded("codex")
    assert place.logins("codex") == {"codex": True}
    place.refused("codex")
    place.env["OPENAI_API_KEY"] = "another"
    assert place.logins("codex") == {"codex": True}


@proves("agent.login-asked-safely")
@pytest.mark.parametrize(("version", "asked_it"), [("2.1.40", 0), ("2.1.41", 1), ("no idea", 0)])
def test_a_program_that_takes_the_question_for_a_prompt_is_not_asked_for_its_login(
    place, version, asked_it
):
    """Claude Code before 2.1.41 sends the words of `claude auth status` to its model."""
    body = f'[ "$1" = --version ] && echo {version} || echo "$*" >> {place.bin}/prompts'
    program(place.bin, "claude", body)
    assert place.logins("claude", anew=True).get("claude") == (True if asked_it else UNKNOWN)
    prompts = place.bin / "prompts"
    assert (len(prompts.read_text().splitlines()) if prompts.exists() else 0) == asked_it


@proves("agent.login-asked-safely")
def test_a_program_is_asked_outside_of_the_folder_in_which_the_daemon_was_started(
    place, tmp_path, monkeypatch
):
    """Programs run what a folder configures: plugins, hooks, another toolchain."""
    monkeypatch.chdir(tmp_path)
    program(place.bin, "claude", f"pwd >> {tmp_path}/where; echo 2.1.332")
    place.found()
    place.logins("claude")
    assert (tmp_path / "where").read_text().split() == ["/", "/"]


@proves("agent.asked-seldom")
def test_a_silent_program_is_asked_as_seldom_as_the_others(place, monkeypatch):
    monkeypatch.setattr(module, "PROBE_S_MAX", 0.3)
    claude = program(place.bin, "claude", "exec sleep 97")
    place.found()
    place.found()
    assert asked(claude) == 1


@proves("agent.asked-seldom")
def test_many_who_ask_at_once_start_the_program_once(place):
    claude = program(place.bin, "claude", "[ $1 = --version ] && exec echo 2.1.332; sleep 0.3")
    place.found()

    async def together():
        asks = [place.discovery.logins(["claude"], place.env, anew=True) for _ in range(5)]
        return await asyncio.gather(*asks)

    assert place.loop.run_until_complete(together()) == [{"claude": True}] * 5
    assert asked(claude) == 2


@proves("agent.asked-seldom")
def test_what_a_program_says_late_or_at_length_is_heard(place):
    program(place.bin, "claude", "echo Loading; sleep 0.3; echo 2.1.332")
    program(place.bin, "codex", "echo 0.171.0; yes | head -c 3000000")
    found = place.found()
    assert (found["claude"].version, found["codex"].version) == ("2.1.332", "0.171.0")


@proves("agent.asked-seldom")
@pytest.mark.parametrize("body", ["exec sleep 98", "echo 2.1.332"])
def test_a_child_in_a_session_of_its_own_holds_nobody_up_and_is_ended(place, monkeypatch, body):
    monkeypatch.setattr(module, "PROBE_S_MAX", 0.5)
    mark = f"{os.getpid()}.{place.home.parent.name}"
    # The kept variable marks whatever the program starts.
    place.env["TERM"] = mark
    program(place.bin, "claude", f"setsid sleep 97 & {body}")

    async def bounded():
        async with asyncio.timeout(20):
            return await place.discovery.found(place.env)

    place.loop.run_until_complete(bounded())
    assert marked(f"TERM={mark}") == {}


@proves("agent.login-refused")
def test_who_was_refused_is_tried_again_after_an_hour(place, monkeypatch):
    """On a Mac the account is in the keychain: no file shows that somebody logged in again."""
    program(place.bin, "claude", "echo 2.1.332")
    place.refused("claude")
    assert place.logins("claude") == {"claude": False}
    monkeypatch.setattr(module, "REFUSED_S_MAX", 0.0)
    assert place.logins("claude") == {"claude": True}


@proves("task.logins-are-facts")
def test_a_no_is_asked_again_at_each_look_for_it_keeps_all_work_away(place, monkeypatch):
    body = '[ "$1" = login ] && exec test -e {bin}/account; echo 0.171.0'
    program(place.bin, "codex", body.format(bin=place.bin))
    assert place.logins("codex") == {"codex": False}
    (place.bin / "account").touch()
    assert place.logins("codex") == {"codex": False}
    monkeypatch.setattr(module, "_NO_S_MAX", 0.0)
    assert place.logins("codex") == {"codex": True}
    (place.bin / "account").unlink()
    assert place.logins("codex") == {"codex": True}, "a yes keeps nobody waiting"


@proves("task.logins-are-facts")
def test_a_programs_no_is_no_answer_where_its_settings_name_another_account(place):
    program(place.bin, "codex", '[ "$1" = login ] && exit 1; echo 0.171.0')
    assert place.logins("codex") == {"codex": False}
    (place.home / ".codex").mkdir()
    (place.home / ".codex" / "config.toml").write_text('model_provider = "ollama"')
    assert place.logins("codex") == {}


@proves("task.logins-are-facts")
@pytest.mark.parametrize(("version", "login"), [("0.61.0", False), ("9.0", False), ("0.9.1", None)])
def test_the_files_of_a_version_that_nobody_looked_at_say_no_to_nothing(place, version, login):
    """An older one may keep its account elsewhere, or need none: it is tried."""
    program(place.bin, "gemini", f"echo {version}")
    assert place.logins("gemini").get("gemini") is login


@proves("agent.login-refused")
def test_who_was_refused_counts_again_when_the_program_says_something_new_of_its_login(
    place, monkeypatch
):
    """The account is in a keychain: only the program knows that somebody logged in again."""
    monkeypatch.setattr(module, "_NO_S_MAX", 0.0)
    said = place.home / "said"
    said.write_text("expires in March")
    program(place.bin, "claude", f'[ "$1" = auth ] && exec cat {said}; echo 2.1.332')
    assert place.logins("claude") == {"claude": True}
    place.refused("claude")
    assert place.logins("claude") == {"claude": False}
    assert place.logins("claude") == {"claude": False}
    said.write_text("expires in May")
    assert place.logins("claude") == {"claude": True}


@proves("agent.asked-seldom", "cli.agents-in-time")
def test_programs_that_hang_keep_no_room_from_the_others(tmp_path, monkeypatch):
    """More that say nothing than are asked at once; the last one answers."""
    monkeypatch.setattr(module, "_ROOM_S_MAX", 0.1)
    place = Place(tmp_path, *HEADLESS)
    for name in HEADLESS[:-1]:
        program(place.bin, KNOWN[name].program, "exec sleep 97")
    program(place.bin, KNOWN[HEADLESS[-1]].program, "echo 1.2.3")
    place.discovery = Discovery(place.discovery.agents, until_s=place.loop.time() + 5.0)
    found = place.found()
    place.loop.close()
    assert found[HEADLESS[-1]].version == "1.2.3"
    assert place.discovery.silent == set(HEADLESS[:-1])


@proves("cli.agents-in-time")
def test_after_the_bound_nobody_is_asked_any_more(place):
    claude = program(place.bin, "claude", "echo 2.1.332")
    place.discovery = Discovery(place.discovery.agents, until_s=place.loop.time() - 1)
    assert place.found()["claude"].version == ""
    assert place.discovery.silent == {"claude"}
    assert asked(claude) == 0
