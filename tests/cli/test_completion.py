"""How words go on in real shells, with a daemon and without one."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.world import environment, muster
from tests.promise import proves

pytestmark = pytest.mark.e2e

# Each prints what the shell would offer, a line each, with the script that it installs.
SHELLS = {
    "bash": """
source "$SCRIPT"; COMP_WORDS=(muster "$@"); COMP_CWORD=$#; _muster; printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
compdef() { : }; compadd() { print -rl -- $names }
source "$SCRIPT"; words=(muster "$@"); CURRENT=$#words; _muster
""",
    "fish": """
source "$SCRIPT"; complete -C "muster $argv" | cut -f1
""",
}
SPEC = "muster: 1\nname: nightly\nphases:\n  only:\n    agent: shell\n    do: sleep 300\n    check: 'true'\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A fleet of one with something of each sort, in whose folder the person stands."""
    folder = tmp_path_factory.mktemp("shells")
    found, source = folder / "home", folder / "desk"
    muster(found, "init", "--name", "studio", "--operator", "alice", "--listen", "")
    assert muster(found, "up", "--detach").code == 0
    source.mkdir()
    (source / "nightly.yaml").write_text(SPEC)
    (source / "notes.txt").write_text("no spec\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(source)]
    for words in (["init", "-qb", "trunk"], ["add", "."], ["commit", "-qm", "1"]):
        subprocess.run([*git, *words], check=True)
    assert muster(found, "repo", "add", "project", str(source)).code == 0
    assert muster(found, "secret", "set", "DEPLOY_TOKEN", stdin="hush-hush-hush").code == 0
    yield found
    muster(found, "down")


@pytest.fixture(scope="module")
def ids(home):
    run = muster(home, "run", str(home.parent / "desk" / "nightly.yaml"), "--detach", "--json")
    assert run.code == 0, run
    for _ in range(100):
        rows = muster(home, "tasks", "--json").value
        if rows:
            return {"run": run.value["run"][:12], "task": rows[0]["task"][:12]}
        time.sleep(0.1)
    raise AssertionError("the run has no task")


def offered(home: Path, shell: str, line: str, **more: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here; .ci/run installs it")
    script = home.parent / f"{shell}.script"
    script.write_text(muster(home, "completion", shell).out)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = line.split(" ")
    start = ["-f", "-c"] if shell == "zsh" else ["--no-config", "-c"] if shell == "fish" else ["-c"]
    name = [line] if shell == "fish" else ["x", *words]
    done = subprocess.run(
        [shell, *start, SHELLS[shell], *name], capture_output=True, text=True, timeout=60,
        cwd=home.parent / "desk", check=False,
        env=environment(home, PATH=path, SCRIPT=str(script), **more),
    )  # fmt: skip
    assert done.returncode in (0, 1), done
    assert done.stderr == ""
    return sorted(each for each in done.stdout.splitlines() if each)


@proves("cli.completion")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_what_there_is(home, ids, shell):
    assert offered(home, shell, "mach") == ["machine", "machines"]
    assert offered(home, shell, "status --on ") == ["studio"]
    assert offered(home, shell, "why ") == [ids["task"]]
    assert offered(home, shell, "runs ") == [ids["run"]]
    assert offered(home, shell, "run nightly.yaml --repo p") == ["project"]
    assert offered(home, shell, "land x --onto t") == ["trunk"]
    assert offered(home, shell, "operator revoke ") == ["alice"]
    assert offered(home, shell, "secret grant D") == ["DEPLOY_TOKEN"]
    assert "shell" in offered(home, shell, "inbox --agent s")
    assert offered(home, shell, "tasks -o ") == ["json", "name", "wide"]


@proves("cli.completion")
def test_only_specs_are_offered_where_a_spec_is_read(home, ids):
    assert offered(home, "bash", "check n") == ["nightly.yaml"]
    assert offered(home, "bash", "check no") == ["notes.txt"]


@proves("cli.completion")
@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_daemon_nothing_is_said_and_verbs_go_on_all_the_same(tmp_path, shell):
    (tmp_path / "desk").mkdir()
    home = tmp_path / "none"
    assert offered(home, shell, "why ") == []
    assert offered(home, shell, "stat") == ["status"]


@proves("cli.completion")
def test_a_word_goes_on_before_a_person_looks_up(home, ids):
    """Less than a fifth of a second of the processor's time, however loaded the machine is."""
    before = os.times().children_user + os.times().children_system
    for _ in range(5):
        assert ids["task"] in muster(home, "complete", "--", "why", "").out
    assert (os.times().children_user + os.times().children_system - before) / 5 < 0.2


@proves("cli.completion")
def test_a_script_is_written_where_its_shell_looks_for_it(tmp_path):
    user = {"HOME": str(tmp_path), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
    for shell, place in {
        "bash": ".local/share/bash-completion/completions/muster",
        "zsh": ".local/share/zsh/site-functions/_muster",
        "fish": ".config/fish/completions/muster.fish",
    }.items():
        for _ in range(2):
            said = muster(tmp_path / "none", "completion", shell, "--install", **user)
            assert (said.code, str(tmp_path / place) in said.out) == (0, True)
        assert (tmp_path / place).read_text() == muster(tmp_path, "completion", shell).out
