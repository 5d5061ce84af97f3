"""`muster secret` as a person types it, with a daemon and without one."""

import json
import sys

import pytest

from muster.node.host.home import Home
from muster.node.host.secret_store import SecretStore
from muster.task.secret import Grant
from muster.verbs.secret_checks import of_secrets
from tests.cli.terminal import Terminal
from tests.cli.world import environment, muster
from tests.promise import proves

VALUE = "canary-4f1c88-of-the-cli"
GRANT = ("--agent", "shell", "--spec", "release", "--phase", "publish")


@pytest.fixture
def home(tmp_path):
    found = tmp_path / "home"
    muster(found, "init", "--name", "studio", "--operator", "alice", "--listen", "")
    return found


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The home of a machine without secrets, in which nothing is changed."""
    found = tmp_path_factory.mktemp("empty") / "home"
    muster(found, "init", "--name", "studio", "--operator", "alice", "--listen", "")
    return found


def everything(home):
    """Each file of a home but the one in which a value belongs."""
    own = home / "secrets"
    return {
        path: path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and (path.parent != own or path.name == "index.json")
    }


@proves("secret.set-plain", "secret.no-value-shown")
def test_a_secret_is_set_from_standard_input_granted_listed_and_taken_back(home):
    said = [muster(home, "secret", "set", "DEPLOY_TOKEN", "--json", stdin=f"{VALUE}\n")]
    assert (said[0].code, said[0].value["place"]) == (0, "file"), said
    assert (home / "secrets" / "DEPLOY_TOKEN").read_text() == VALUE
    said.append(muster(home, "secret", "grant", "DEPLOY_TOKEN", *GRANT, "--until", "8h"))
    assert "shell/release/publish" in said[-1].out
    said.append(muster(home, "secret", "list"))
    assert "DEPLOY_TOKEN" in said[-1].out
    said.append(muster(home, "secret", "list", "--json"))
    (row,) = said[-1].value["secrets"]
    assert (row["name"], row["place"], row["granted"]) == (
        "DEPLOY_TOKEN", "file", ["shell/release/publish"],
    )  # fmt: skip
    assert row["set_ms"] > 0
    said.append(muster(home, "secret", "revoke", "DEPLOY_TOKEN", "--spec", "release", "--json"))
    assert said[-1].value["attempts"] == ["shell/release/publish"]
    said.append(muster(home, "secret", "remove", "DEPLOY_TOKEN", "--yes"))
    said.append(muster(home, "secret", "list", "--json"))
    assert said[-1].value == {"secrets": []}
    assert all(each.code == 0 for each in said), said
    assert not [each for each in said if VALUE in each.out + each.err]
    assert not [path for path, raw in everything(home).items() if VALUE.encode() in raw]


@proves("secret.set-plain")
def test_a_value_is_asked_for_without_being_shown(home):
    words = [sys.executable, "-m", "muster", "secret", "set", "DEPLOY_TOKEN"]
    with Terminal(words, environment(home)) as terminal:
        shown = terminal.see("DEPLOY_TOKEN: ")
        terminal.type(f"{VALUE}\n")
        assert terminal.end(60) == 0
        assert VALUE not in shown + terminal.text
    assert (home / "secrets" / "DEPLOY_TOKEN").read_text() == VALUE


@proves("secret.set-plain", "secret.bounds")
@pytest.mark.parametrize(
    ("words", "stdin", "says"),
    [
        (("set", "DEPLOY_TOKEN", "--from-file", "none.txt"), "", "there is no file"),
        (("set", "deploy"), VALUE, "is not a secret's name"),
        (("set", "PATH"), VALUE, "every program needs"),
        (("set", "DEPLOY_TOKEN"), "short", "too short to be hidden"),
        (("set", "DEPLOY_TOKEN"), "x" * 20_000, "16 KiB"),
        (("set", "DEPLOY_TOKEN", VALUE), "", "one word too many"),
        (("set", "DEPLOY_TOKEN", "--in", "keychain"), VALUE, "no keychain"),
        (("grant", "DEPLOY_TOKEN", *GRANT), "", "no secret"),
        (("grant", "DEPLOY_TOKEN", "--agent", "shell"), "", "--spec NAME"),
        (("grant", "DEPLOY_TOKEN", *GRANT, "--until", "2020-01-01"), "", "over already"),
        (("grant", "DEPLOY_TOKEN", *GRANT, "--until", "soon"), "", "is no time"),
        (("revoke", "DEPLOY_TOKEN"), "", "no such grant"),
        (("remove", "DEPLOY_TOKEN", "--yes"), "", "no secret"),
    ],
)
def test_what_is_refused_is_said_in_a_sentence_and_changes_nothing(empty, words, stdin, says):
    said = muster(empty, "secret", *words, stdin=stdin)
    assert said.code != 0
    assert says in said.err
    assert said.err.count("\n") == 1
    if says != "one word too many":
        assert VALUE not in said.err + said.out
    assert not any(p.is_file() for p in (empty / "secrets").rglob("*"))


@proves("secret.set-plain")
def test_a_key_of_several_lines_comes_from_a_file_as_it_is(home, tmp_path):
    key = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\n-----END KEY-----\n"
    (tmp_path / "key").write_text(key)
    said = muster(home, "secret", "set", "DEPLOY_KEY", "--from-file", str(tmp_path / "key"))
    assert said.code == 0
    assert (home / "secrets" / "DEPLOY_KEY").read_text() == key


@proves("secret.credentials", "secret.no-value-shown")
@pytest.mark.e2e
def test_what_systemd_hands_to_the_daemon_is_listed_and_granted_and_changed_by_nobody(
    home, tmp_path
):
    placed = tmp_path / "credentials"
    placed.mkdir()
    (placed / "UNIT_TOKEN").write_text(VALUE)
    (placed / "UNIT_TOKEN").chmod(0o400)
    assert muster(home, "up", "--detach", CREDENTIALS_DIRECTORY=str(placed)).code == 0
    try:
        (row,) = muster(home, "secret", "list", "--json").value["secrets"]
        assert (row["name"], row["place"], row["granted"]) == ("UNIT_TOKEN", "credential", [])
        for words in (("set", "UNIT_TOKEN"), ("remove", "UNIT_TOKEN", "--yes")):
            said = muster(home, "secret", *words, stdin="another-value-of-it")
            assert (said.code, "UNIT_TOKEN" in said.err) != (0, True), said
        granted = muster(home, "secret", "grant", "UNIT_TOKEN", *GRANT, "--json").value
        assert (granted["place"], granted["counts"], granted["reason"]) == ("credential", True, "")
        assert muster(home, "secret", "revoke", "UNIT_TOKEN").code == 0
        assert not [path for path, raw in everything(home).items() if VALUE.encode() in raw]
    finally:
        muster(home, "down")


@proves("secret.file-modes", "secret.taken-back", "cli.doctor")
def test_doctor_names_files_that_others_can_read_and_grants_that_ended(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    assert list(of_secrets(home)) == []
    store = SecretStore(home.path)
    store.put("DEPLOY_TOKEN", VALUE, 1)
    store.grant("DEPLOY_TOKEN", Grant("shell", "release", "*", 1))
    assert [check.state for check in of_secrets(home)] == ["ok"]
    store.grant("DEPLOY_TOKEN", Grant("shell", "old", "*", 1, until_ms=2))
    (store.folder / "DEPLOY_TOKEN").chmod(0o644)
    wrong, note = of_secrets(home)
    assert (wrong.state, "chmod 600" in wrong.mend) == ("wrong", True)
    assert (note.state, "shell/old/*" in note.text) == ("note", True)
    assert "muster secret revoke DEPLOY_TOKEN" in note.mend
    (store.folder / "index.json").chmod(0o644)
    assert {check.state for check in of_secrets(home)} == {"wrong"}
    assert VALUE not in json.dumps([[c.text, c.mend] for c in of_secrets(home)])
