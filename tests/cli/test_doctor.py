"""`muster doctor` on a machine whose daemon has something to say."""

from typing import Any

from muster.node.home import Home
from muster.verbs.doctor import _agents, _of_daemon
from tests.promise import proves


class Door:
    def ask(self, verb: str, _args: Any) -> Any:
        assert verb == "status", "a revoked machine is asked nothing else"
        return {"name": "build", "revoked": {"t_ms": 1, "reason": "stolen"}, "exposed": 3}


@proves("node.revoked-learns-it")
def test_doctor_says_that_this_machine_was_revoked_what_to_do_and_nothing_that_misleads():
    door: Any = Door()
    checks = list(_of_daemon(door))
    assert [(check.name, check.state) for check in checks] == [
        ("daemon", "ok"),
        ("membership", "wrong"),
    ]
    assert "invitation" in checks[-1].mend


@proves("task.logins-are-facts", "cli.doctor")
def test_doctor_says_of_each_agent_whether_it_looks_logged_in(tmp_path, monkeypatch):
    for name in ("codex", "codex-acp", "claude", "claude-agent-acp"):
        (tmp_path / name).write_text("#!/bin/sh\necho 1.2.3\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("OPENAI_API_KEY", "CODEX_API_KEY", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = Home(tmp_path / "home")
    home.create()
    home.put("fleet.json", b"{}")
    home.put("agents.env", b"ANTHROPIC_API_KEY=sk-ant-0123456789\n")
    found = {check.name: check for check in _agents(home)}
    assert (found["agent claude"].state, found["agent codex"].state) == ("ok", "note")
    assert "codex login" in found["agent codex"].mend
    (home.path / "agents.env").chmod(0o644)
    assert [(c.name, c.state) for c in _agents(home)] == [("agents", "wrong")]
