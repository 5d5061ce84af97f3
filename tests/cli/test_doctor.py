"""`muster doctor` on a machine whose daemon has something to say."""

import shutil
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from muster.cli import show
from muster.extra import bring
from muster.node.host.home import Home
from muster.node.host.notify_store import NotifyStore
from muster.verbs import agent as agents
from muster.verbs import daemon_checks, doctor, place_checks, repair, setup
from muster.verbs.daemon_checks import of_daemon
from muster.verbs.doctor import Ask, _agents, _of_path, _servers
from muster.verbs.place_checks import of_places, of_their_use
from tests.cli import test_text
from tests.promise import proves


class CommandContext:
    def ask(self, verb: str, _args: Any) -> Any:
        assert verb == "status", "a revoked machine is asked nothing else"
        return {
            "name": "build",
            "revoked": {"t_ms": 1, "reason": "stolen"},
            "exposed": 3,
            "counters": {},
        }


@proves("node.revoked-learns-it")
def test_doctor_says_that_this_machine_was_revoked_what_to_do_and_nothing_that_misleads():
    context: Any = CommandContext()
    checks = list(of_daemon(context))
    assert [(check.name, check.state) for check in checks] == [
        ("daemon", "ok"),
        ("membership", "wrong"),
    ]
    assert "invitation" in checks[-1].mend


@proves("notify.pagers-are-machines")
def test_doctor_names_a_pager_that_is_no_machine_and_says_who_else_tells(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    home.put("config.toml", b'notify.pagers = ["nas", "studio"]\n')
    NotifyStore(home.path).add("phone", "ntfy://topic", "push", in_keychain=False)
    context: Any = SimpleNamespace(home=home, ask=lambda *_: [{"name": "studio"}, {"name": "hub"}])
    checks = list(daemon_checks._pagers(context, "hub"))
    assert [each.state for each in checks] == ["wrong", "note"]
    assert "names nas, and no machine" in checks[0].text
    assert "phone are here, but others tell people: nas, studio" in checks[1].text
    home.put("config.toml", b'notify.pagers = ["hub"]\n')
    assert list(daemon_checks._pagers(context, "hub")) == []


@proves("task.logins-are-facts", "cli.doctor")
def test_doctor_says_of_each_agent_whether_it_looks_logged_in(tmp_path, monkeypatch):
    for name in ("codex", "codex-acp", "claude", "claude-agent-acp"):
        (tmp_path / name).write_text("#!/bin/sh\n[ $1 = --version ] || exit 1\necho 1.2.3\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("OPENAI_API_KEY", "CODEX_API_KEY", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = Home(tmp_path / "home")
    home.create()
    home.put("fleet.json", b"{}")
    home.put("agents.env", b"ANTHROPIC_API_KEY=sk-ant-0123456789\n")
    context: Any = SimpleNamespace(home=home, note=print)
    found = {check.name: check for check in _agents(context)}
    assert (found["agent claude"].state, found["agent codex"].state) == ("ok", "note")
    assert "codex login" in found["agent codex"].mend
    (home.path / "agents.env").chmod(0o644)
    checks = list(doctor.tried("agents", "", partial(_agents, context)))
    assert [(c.name, c.state) for c in checks] == [("agents", "wrong")]


@proves("agent.mcp-per-task", "cli.doctor")
def test_doctor_names_the_server_that_lacks_a_variable_or_a_program_and_no_other(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    assert list(_servers(home)) == []
    home.put(
        "config.toml",
        b"""
path = "/usr/bin:/bin"
mcp.docs = {command = ["sh"], env = ["DOCS_TOKEN_OF_OURS"]}
mcp.gone = {command = ["gone-mcp-of-nobody"]}
mcp.well = {command = ["sh"], env = ["WELL_TOKEN_OF_OURS"]}
""",
    )
    home.put("agents.env", b"WELL_TOKEN_OF_OURS=x\n")
    (home.path / "agents.env").chmod(0o600)
    docs, gone = _servers(home)
    assert (docs.name, docs.state) == ("MCP server docs", "note")
    assert "needs DOCS_TOKEN_OF_OURS, which is not set here" in docs.text
    assert "agents.env" in docs.mend
    assert "needs gone-mcp-of-nobody, which is not on PATH" in gone.text


@proves("agent.mcp-per-task", "cli.doctor")
def test_doctor_names_the_agent_that_is_not_given_a_server_as_it_is_driven_here(
    tmp_path, monkeypatch
):
    for name in ("gemini", "claude"):
        (tmp_path / name).write_text("#!/bin/sh\necho 1.2.3\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    home = Home(tmp_path / "home")
    home.create()
    home.put("fleet.json", b"{}")
    context: Any = SimpleNamespace(home=home, note=print)

    def told(config):
        path = f'path = "{tmp_path}:/usr/bin:/bin"\n'
        home.put("config.toml", (path + config).encode())
        return [(c.text, c.mend) for c in _agents(context) if c.name == "MCP server docs"]

    docs = 'mcp.docs = {url = "https://example.org/mcp"}\n'
    assert told(docs) == []
    assert told(docs + 'headless = ["gemini", "claude"]') == [
        (
            "gemini is driven by its headless mode here, which is given no MCP server",
            "the task needs ACP: gemini",
        )
    ]


@proves("cli.agents", "cli.doctor")
def test_doctor_without_a_daemon_finds_what_a_daemon_would_and_says_how_to_get_the_rest(
    tmp_path, monkeypatch
):
    """The program alone is enough; it lies where no PATH of a service reaches."""
    (tmp_path / ".local" / "bin").mkdir(parents=True)
    claude = tmp_path / ".local" / "bin" / "claude"
    claude.write_text("#!/bin/sh\n[ $1 = auth ] && exit 1\necho 2.1.0\n")
    claude.chmod(0o755)
    for name, value in {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "SHELL": "/bin/false",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    home = Home(tmp_path / "home")
    home.create()
    home.put("config.toml", b'headless = ["claude", "clod"]\n')
    context: Any = SimpleNamespace(home=home, note=print)
    found = {check.name: check for check in _agents(context)}
    assert found["agents"].text == "found: claude 2.1.0"
    assert found["agent claude"].text.startswith("claude is on PATH but not logged in")
    assert "run `claude` there once" in found["agent claude"].mend
    assert "'clod'" in found["headless"].text
    claude.unlink()
    found = {check.name: check for check in _agents(context)}
    assert found["agents"].state == "note"
    assert "`npm install -g @anthropic-ai/claude-code`" in found["agents"].mend


@proves("cli.agents-in-time")
def test_an_agent_that_does_not_answer_is_told_as_that_and_costs_the_others_nothing(
    tmp_path, monkeypatch
):
    bodies = {"claude": "exec sleep 97", "codex": "[ $1 = login ] && exit 0; echo 1.2.3"}
    for name, body in bodies.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    for name, value in {"HOME": str(tmp_path), "SHELL": "/bin/false"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(agents, "LOOK_S_MAX", 3.0)
    home = Home(tmp_path / "home")
    home.create()
    home.put("config.toml", f'path = "{tmp_path}:/usr/bin:/bin"\n'.encode())
    told: list[str] = []
    context: Any = SimpleNamespace(home=home, note=told.append)
    found = {check.name: check for check in _agents(context)}
    assert told == ["asking claude, codex: each has 3 s to answer"]
    assert found["agents"].text == "found: codex 1.2.3"
    assert found["agent claude"].text == "claude is on PATH and does not answer"
    assert "`claude --version` in a terminal" in found["agent claude"].mend
    assert found["agent codex"].text.startswith("codex is logged in")
    assert setup._agents(context) == ({"codex": "yes"}, ["claude"])
    (tmp_path / "codex").unlink()
    found = {check.name: check for check in _agents(context)}
    assert (found["agents"].text, found["agents"].mend) == ("found: none that answers", "")


@proves("cli.agents")
def test_doctor_believes_the_daemon_whose_environment_agents_get(tmp_path):
    row = {"agent": "claude", "machine": "here", "version": "2.1.0", "driver": "acp",
           "login": "no", "mend": "log in", "state": "not logged in"}  # fmt: skip
    answers = {"status": {"name": "here"}, "agents": [row]}
    home = Home(tmp_path / "home")
    home.create()
    home.put_seed("seed", bytes(32))
    context: Any = SimpleNamespace(home=home, ask=lambda verb, _args: answers[verb])
    found = {check.name: check for check in _agents(context)}
    assert found["agent claude"].mend == "log in"


@proves("agent.headless-rights", "cli.doctor")
def test_doctor_says_that_a_wish_for_a_mode_that_does_more_is_not_followed(tmp_path, monkeypatch):
    row = {"agent": "goose", "machine": "here", "version": "1.9.0", "driver": "acp",
           "login": "yes", "mend": "", "state": "ready"}  # fmt: skip
    answers = {"status": {"name": "here"}, "agents": [row]}
    home = Home(tmp_path / "home")
    home.create()
    home.put_seed("seed", bytes(32))
    home.put("config.toml", b'headless = ["goose"]\n')
    context: Any = SimpleNamespace(home=home, ask=lambda verb, _args: answers[verb])
    found = {check.name: check for check in _agents(context)}
    assert "keeps to the work folder" in found["headless"].text


@proves("cli.doctor")
def test_doctor_names_a_folder_of_the_path_in_which_everybody_may_put_a_program(tmp_path):
    folders = [tmp_path / name for name in ("open", "own", "absent")]
    for folder, mode in zip(folders[:2], (0o777, 0o755), strict=True):
        folder.mkdir()
        folder.chmod(mode)
    checks = list(_of_path(":".join([*map(str, folders), "", "."])))
    assert [(check.name, check.state) for check in checks] == [("PATH", "note")]
    assert str(folders[0]) in checks[0].text


class Machines:
    """A daemon whose peers' clocks are so far off."""

    def __init__(self, *skews_ms: int | None) -> None:
        self.machines = [{"name": f"m{n}", "skew_ms": each} for n, each in enumerate(skews_ms)]

    def ask(self, verb: str, _args: Any) -> Any:
        assert verb == "machines"
        return self.machines


@proves("cli.doctor-finds")
@pytest.mark.parametrize(
    ("skews_ms", "found"),
    [
        ((0, None, 29_000, -29_000), [("ok", "")]),
        ((31_000, 0), [("wrong", "m0 is 31 s off")]),
        ((0, -3_600_000, 40_000), [("wrong", "m1 is -3600 s off"), ("wrong", "m2 is 40 s off")]),
    ],
)
def test_doctor_says_whose_clock_is_far_off(skews_ms, found):
    context: Any = Machines(*skews_ms)
    checks = list(daemon_checks._skews(context))
    assert [each.state for each in checks] == [state for state, _ in found]
    assert all(text in check.text for check, (_, text) in zip(checks, found, strict=True))
    assert all(check.mend for check in checks if check.state == "wrong")


@proves("cli.doctor-finds")
@pytest.mark.parametrize(
    ("free_mib", "state"), [(100, "wrong"), (127, "wrong"), (129, "note"), (1023, "note"), (1025, "ok")]
)  # fmt: skip
def test_doctor_says_that_the_disk_is_nearly_full(tmp_path, monkeypatch, free_mib, state):
    usage = shutil.disk_usage(tmp_path)._replace(free=free_mib * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    (check,) = doctor._space(Home(tmp_path))
    assert (check.state, bool(check.mend)) == (state, state != "ok")
    assert f"{free_mib} MiB" in check.text


STATUS: dict[str, Any] = {
    "name": "studio", "revoked": None, "exposed": 0, "machines": {"known": 2}, "doubt": None, "incidents": [],
    "counters": {},
}  # fmt: skip


@proves("node.setback-is-said")
@pytest.mark.parametrize("waits", [True, False])
def test_doctor_begins_with_what_is_wrong_with_a_machines_past(tmp_path, monkeypatch, waits):
    lost = {"id": "d" * 32, "reasons": ["It had 9 entries."], "waits": waits, "awaits": "hub"}
    other = {
        "key": "clone-1",
        "severity": "critical",
        "title": "two copies of lap",
        "machine": "hub",
    }
    said = {**STATUS, "doubt": lost, "incidents": [other]}

    class Said:
        home, on = Home(tmp_path), ""

        def ask(self, verb: str, _args: Any) -> Any:
            return said if verb == "status" else []

    monkeypatch.setattr(doctor, "_agents", lambda *_: iter(()))
    monkeypatch.setattr(doctor, "_of_home", lambda *_: iter(()))
    (tmp_path / "seed").write_bytes(b"x")
    context: Any = Said()
    answer = doctor.doctor(context, Ask())
    first, second = (msgspec.to_builtins(each) for each in answer.value.checks[:2])
    assert answer.code == 1
    assert "It had 9 entries." in first["text"]
    assert ("waits for hub" in first["text"]) is waits
    assert "muster vouch" in first["mend"]
    assert second["text"] == "hub says: two copies of lap"


@proves("node.setback-is-said")
def test_status_begins_with_what_is_wrong_with_a_machines_past():
    lost = {"id": "d" * 32, "reasons": ["It had 9 entries."], "waits": True, "awaits": "hub"}
    value = {**test_text.STATUS, "doubt": lost}
    lines = show.text("status", value).splitlines()
    assert "It had 9 entries." in lines[0]
    assert "muster vouch" in lines[1]
    grave = {
        "key": "set-back-1",
        "severity": "critical",
        "title": "lap lost a part",
        "machine": "studio",
    }
    value = {**test_text.STATUS, "doubt": None, "incidents": [grave]}
    assert show.text("status", value).splitlines()[0] == "studio says: lap lost a part"
    ours = {**grave, "machine": value["name"]}
    page = show.text("status", {**value, "incidents": [ours]})
    assert page.splitlines()[0] == "lap lost a part"


@proves("cli.doctor")
def test_doctor_says_where_a_shared_folder_tells_of_nothing(tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    home.create()
    home.put("config.toml", b'channel.drop.place = "/srv/shared"\n')
    assert list(of_places(home)) == []
    monkeypatch.setattr(place_checks, "find_spec", lambda _: None)
    (check,) = of_places(home)
    assert (check.name, check.state) == ("drop", "note")
    assert check.mend == bring("drop")


@proves("cli.doctor")
def test_doctor_says_what_keeps_a_place_from_use_and_no_key(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    home.put("config.toml", b'channel.cloud.place = "https://s3.example.com/shared"\n')
    (check,) = of_places(home)
    assert (check.name, check.state) == ("cloud", "wrong")
    assert "gives no AWS_ACCESS_KEY_ID of use" in check.text
    env = home.path / "cloud.env"
    env.write_text("AWS_ACCESS_KEY_ID=AKIA7\nAWS_SECRET_ACCESS_KEY=hush hush\n")
    env.chmod(0o644)
    (check,) = of_places(home)
    assert f"others can read {env}" in check.text
    (mend,) = repair._modes(home)
    assert str(env) in mend.what
    mend.do()
    assert env.stat().st_mode & 0o777 == 0o600
    (check,) = of_places(home)
    assert "gives no AWS_SECRET_ACCESS_KEY of use" in check.text
    assert "hush" not in check.text
    env.write_text("AWS_ACCESS_KEY_ID=AKIA7\nAWS_SECRET_ACCESS_KEY=hush\n")
    assert list(of_places(home)) == []

    def rows(verb: str, _: Any) -> list[dict[str, str]]:
        assert verb == "channels"
        return [
            {"channel": "http", "state": "failed", "reason": "away"},
            {"channel": "cloud", "state": "broken", "reason": "it refuses (403)"},
            {"channel": "cloud", "state": "broken", "reason": "it refuses (403)"},
            {"channel": "drop", "state": "failed", "reason": "the stick is away"},
            {"channel": "nats", "state": "worked", "reason": ""},
        ]

    context: Any = SimpleNamespace(ask=rows)
    assert [(check.name, check.state, check.text) for check in of_their_use(context)] == [
        ("cloud", "wrong", "it refuses (403)"),
        ("drop", "note", "the stick is away"),
    ]
