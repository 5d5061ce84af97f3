"""What of a machine an enclosed program sees so that it can run, and what of a home it never does."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.promise import proves

from muster.agent.relay import SOURCE_ROOT
from muster.agent.visible import files_named, readable, variables

SECRETS = (".ssh/id_ed25519", ".netrc", ".cargo/credentials.toml", ".local/share/keyrings/login")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in SECRETS:
        made(tmp_path / "home" / name, "secret")
    return tmp_path / "home"


def made(path: Path, text: str = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def linked(path: Path, to: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)
    return str(path)


def shown(found: list[str], path: Path | str) -> bool:
    return any(f"{path}/".startswith(f"{each}/") for each in found)


def secrets(found: list[str], home: Path) -> Iterator[str]:
    return (name for name in SECRETS if shown(found, home / name))


@proves("agent.sees-programs-alone")
@pytest.mark.parametrize(
    "path",
    [
        "{home}/.local/bin",
        "{home}/.cargo/bin:{home}/.local/bin:/usr/bin",
        # A PATH that leads to everything shows nothing of it.
        "{home}",
        "{home}/",
        "/",
        "{home}/..",
        "{home}/.local/bin/../..",
        "",
        "relative:.",
        ":::",
    ],
)
def test_no_path_shows_what_is_secret_in_a_home(home: Path, path: str) -> None:
    made(home / ".local/bin/tool")
    made(home / ".cargo/bin/cargo")
    found = readable([], path.format(home=home), str(home))
    assert not list(secrets(found, home))
    assert "/" not in found


@proves("agent.sees-programs-alone")
def test_the_folders_of_path_are_seen_and_those_of_the_system_are_named_by_nobody(
    home: Path,
) -> None:
    tool = made(home / ".local/bin/tool")
    found = readable([], f"{home}/.local/bin:/usr/bin:/bin", str(home))
    assert shown(found, tool)
    assert not any(each.startswith(("/usr", "/bin")) for each in found)


@proves("agent.sees-programs-alone")
def test_what_npm_installs_for_a_person_runs(home: Path) -> None:
    code = made(home / ".npm-global/lib/node_modules/@maker/agent/cli.js", "#!/usr/bin/env node\n")
    beside = made(home / ".npm-global/lib/node_modules/helper/index.js")
    program = linked(home / ".npm-global/bin/agent", "../lib/node_modules/@maker/agent/cli.js")
    found = readable([program], f"{home}/.npm-global/bin", str(home))
    assert all(shown(found, each) for each in (code, beside, program))
    assert not list(secrets(found, home))


@proves("agent.sees-programs-alone")
def test_a_program_behind_links_is_seen_with_each_of_them_and_nothing_beside_it(home: Path) -> None:
    binary = made(home / ".local/share/agent/versions/2.1/agent")
    beside = made(home / ".local/share/agent/account.json", "secret")
    middle = linked(home / ".local/share/agent/current", "versions/2.1/agent")
    program = linked(home / "tools/agent", middle)
    found = readable([program], "/usr/bin", str(home))
    assert all(shown(found, each) for each in (binary, middle, program))
    assert not shown(found, beside)


@proves("agent.sees-programs-alone")
def test_a_script_is_seen_with_the_environment_that_runs_it(home: Path) -> None:
    venv = home / "project/.venv"
    made(venv / "pyvenv.cfg")
    library = made(venv / "lib/python3/site-packages/agent.py")
    python = linked(venv / "bin/python", sys.executable)
    script = made(home / "scripts/agent", f"#!{python} -P\n")
    found = readable([script], "/usr/bin", str(home))
    assert all(shown(found, each) for each in (script, library, python))


@proves("agent.sees-programs-alone")
def test_toolchains_are_seen_where_path_leads_to_them_and_are_told_where_they_are(
    home: Path,
) -> None:
    made(home / ".cargo/bin/cargo")
    made(home / ".rustup/toolchains/stable/bin/cargo")
    made(home / ".pyenv/shims/python")
    path = f"{home}/.cargo/bin:/usr/bin"
    found = readable([], path, str(home))
    assert shown(found, home / ".rustup/toolchains")
    assert not shown(found, home / ".pyenv")
    assert variables(path) == {"RUSTUP_HOME": f"{home}/.rustup"}
    assert not list(secrets(found, home))


@proves("agent.sees-programs-alone")
def test_we_ourselves_are_seen_for_an_agent_may_call_us(home: Path) -> None:
    found = readable([], "/usr/bin", str(home))
    for ours in (SOURCE_ROOT, sys.prefix, sys.base_prefix):
        assert shown(found, ours) or ours.startswith("/usr")


@proves("agent.sees-programs-alone")
def test_a_program_that_is_not_there_and_links_in_a_circle_show_nothing(home: Path) -> None:
    linked(home / "tools/a", "b")
    linked(home / "tools/b", "a")
    before = readable([], "/usr/bin", str(home))
    assert readable([str(home / "gone"), "agent", ""], "/usr/bin", str(home)) == before
    one, two = home / "tools/one", home / "tools/two"
    made(one, f"#!{two}\n")
    made(two, f"#!{one}\n")
    found = readable([str(home / "tools/a"), str(one)], "/usr/bin", str(home))
    assert not list(secrets(found, home))


@proves("agent.sees-programs-alone")
@pytest.mark.parametrize("own", ["{home}/.local/bin/muster", "{home}/.local", "{home}/link"])
def test_what_is_musters_own_is_seen_by_nobody_wherever_programs_lie(home: Path, own: str) -> None:
    tool = made(home / ".local/bin/tool")
    made(home / ".local/bin/muster/seed", "secret")
    linked(home / "link", str(home / ".local/bin/muster"))
    path = f"{home}/.local/bin:/usr/bin"
    assert shown(readable([], path, str(home)), tool)
    found = readable([tool], path, str(home), [own.format(home=home)])
    assert not shown(found, home / ".local/bin/muster/seed")


def test_files_that_variables_name_are_seen_where_they_are_there(home: Path) -> None:
    roots = made(home / "certificates/company.pem")
    env = {"SSL_CERT_FILE": roots, "SSL_CERT_DIR": "/nowhere", "NODE_EXTRA_CA_CERTS": "relative"}
    assert files_named(env, [*env, "REQUESTS_CA_BUNDLE"]) == [os.path.normpath(roots)]
