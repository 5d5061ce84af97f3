"""Where programs are looked for: the person's PATH, however the daemon was started."""

import asyncio
import os
import shlex

import pytest
from tests.agent.world import marked, wait_until
from tests.promise import proves

from muster.node.host import person_path as module
from muster.node.host.person_path import person_path

POOR = "/usr/bin:/bin"


def shell(folder, body):
    """A login shell of this text, which gets `-ilc COMMAND`."""
    file = folder / "shell"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return str(file)


def found(env, configured=""):
    return asyncio.run(person_path(configured, env)).split(os.pathsep)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@proves("node.person-path")
def test_a_daemon_that_the_system_starts_asks_the_persons_login_shell(tmp_path, home):
    own = shell(
        tmp_path,
        f'echo "Welcome!"; PATH={home}/tools:$PATH; [ "$1" = -ilc ] && eval "$2"; echo bye',
    )
    path = found({"PATH": POOR, "HOME": str(home), "SHELL": own})
    assert path[:3] == [f"{home}/tools", "/usr/bin", "/bin"]


@proves("node.person-path")
def test_a_path_that_has_all_of_the_shells_is_kept_in_its_order(tmp_path, home):
    own = shell(tmp_path, 'PATH=/usr/bin:/bin; eval "$2"')
    path = found({"PATH": "/bin:/project/bin:/usr/bin", "HOME": str(home), "SHELL": own})
    assert path[:3] == ["/bin", "/project/bin", "/usr/bin"]


@proves("node.person-path")
def test_folders_of_installers_are_looked_at_last_and_the_newest_node_of_nvm_is_one(home):
    for name in (".local/bin", ".claude/local", ".nvm/versions/node/v9.1.0/bin", ".nvm/versions/node/v22.3.0/bin"):  # fmt: skip
        (home / name).mkdir(parents=True)
    path = found({"PATH": POOR, "HOME": str(home), "SHELL": "/usr/sbin/nologin"})
    assert path[:4] == ["/usr/bin", "/bin", f"{home}/.local/bin", f"{home}/.claude/local"]
    assert f"{home}/.nvm/versions/node/v22.3.0/bin" in path
    assert f"{home}/.nvm/versions/node/v9.1.0/bin" not in path


@proves("node.person-path")
def test_the_configuration_is_the_whole_answer_and_asks_nobody(tmp_path, home):
    own = shell(tmp_path, f"touch {tmp_path}/asked")
    env = {"PATH": POOR, "HOME": str(home), "SHELL": own}
    assert found(env, "/one:.::bin:./tools:/two") == ["/one", "/two"]
    assert not (tmp_path / "asked").exists()


@proves("node.person-path-bounded")
@pytest.mark.parametrize(
    "body",
    [
        "sleep 97",
        "sleep 97 & exec sleep 98",
        "trap '' HUP; sleep 97",
        "exit 3",
        'eval "$2"; sleep 97',
        "yes",
        "kill -9 $$",
        'PATH="relative:.::with\nline"; eval "$2"',
    ],
)
def test_a_shell_that_hangs_fails_or_talks_for_ever_costs_a_moment(
    tmp_path, home, monkeypatch, body
):
    monkeypatch.setattr(module, "SHELL_S_MAX", 0.5)
    own = shell(tmp_path, body)
    mark = f"MUSTER_TEST_MARK={tmp_path.name}-{os.getpid()}"
    name, _, value = mark.partition("=")
    path = found({"PATH": POOR, "HOME": str(home), "SHELL": own, name: value})
    assert path[:2] == ["/usr/bin", "/bin"]
    assert not [each for each in path if not os.path.isabs(each)]
    # Whoever was killed takes a moment to be gone; a sleep of 97 s would outlast this.
    assert wait_until(lambda: not marked(mark)), marked(mark)


@proves("node.person-path-bounded")
@pytest.mark.parametrize("before", ["", "trap '' HUP; "], ids=["terminal", "nohup"])
def test_a_shell_that_is_asked_for_too_long_takes_its_lock_away_as_when_its_terminal_closes(
    tmp_path, home, monkeypatch, before
):
    monkeypatch.setattr(module, "SHELL_S_MAX", 0.5)
    lock = tmp_path / "lock"
    body = f"trap 'rm {lock}' EXIT; touch {lock}; while :; do sleep 0.05; done"
    own = shell(tmp_path, f"{before}bash -c {shlex.quote(body)}; exit")
    assert found({"PATH": POOR, "HOME": str(home), "SHELL": own})[:2] == ["/usr/bin", "/bin"]
    assert not lock.exists()


@proves("node.person-path-bounded")
@pytest.mark.parametrize("own", ["/no/such/shell", "sh", "/bin/false", ""])
def test_without_a_shell_the_path_of_the_start_counts(home, own):
    env = {"PATH": POOR, "HOME": str(home), "SHELL": own}
    if own:
        assert found(env)[:2] == ["/usr/bin", "/bin"]
    else:
        assert set(found(env)) >= {"/usr/bin", "/bin"}
