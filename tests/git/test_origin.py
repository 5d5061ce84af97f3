"""Where a repository is from: kept beside it, without secrets."""

from pathlib import Path

import pytest
from tests.git.repositories import checkout, sh, wait
from tests.promise import proves

from muster.errors import Damaged, Refused
from muster.git import command as git
from muster.git import origin, repository

SECRET = "hunter2"


@proves("git.origin-kept")
@pytest.mark.parametrize(
    "address",
    [
        f"https://alice:{SECRET}@example.org/x.git",
        f"https://{SECRET}@example.org/x.git",
        f"HTTPS://{SECRET}@example.org/x.git",
        f"https://example.org/x.git?private_token={SECRET}",
        f"https://example.org/x.git#{SECRET}",
        f"ssh://git:{SECRET}@example.org/x.git",
        f"https::https://alice:{SECRET}@example.org/x.git",
        f"https::https://example.org/x.git?token={SECRET}",
        f"ssh::ssh://git:{SECRET}@example.org/x.git",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(tmp_path: Path, address: str):
    with pytest.raises(Refused, match="leave it out") as refused:
        wait(repository.add(tmp_path / "repos", "main", address))
    assert SECRET not in str(refused.value)
    assert not repository.listing(tmp_path / "repos")


@proves("git.origin-kept")
@pytest.mark.parametrize(
    "address",
    [
        "https://example.org:8443/x.git",
        "ssh://git@example.org/x",
        "git@example.org:x",
        "muster::hub/x",
    ],
)
def test_an_address_without_a_secret_is_one(address: str):
    origin.check_address(address)


@proves("git.origin-kept")
def test_a_repository_follows_where_it_was_taken_from_and_a_bundle_only_if_asked(tmp_path: Path):
    source, repos = checkout(tmp_path / "source"), tmp_path / "repos"
    sh(source, "bundle", "create", "-q", str(tmp_path / "b.bundle"), "--all")
    for name, place, said, follows in (
        ("main", source, None, True),
        ("fixed", source, False, False),
        ("bundle", tmp_path / "b.bundle", None, False),
        ("asked", tmp_path / "b.bundle", True, True),
    ):
        made = wait(repository.add(repos, name, str(place), said, 7))
        kept = origin.read(made.path)
        assert kept is not None
        assert (kept.address, kept.follows, kept.synced_ms) == (str(place), follows, 7)
        assert made.follows == follows
        assert (made.path / origin.FILE).stat().st_mode & 0o077 == 0
        assert repository.guarded(made.path)


@proves("git.origin-kept")
def test_an_origin_that_cannot_be_read_is_said_and_none_is_none(tmp_path: Path):
    assert origin.read(tmp_path) is None
    (tmp_path / origin.FILE).write_text("{")
    with pytest.raises(Damaged, match="remove that file"):
        origin.read(tmp_path)


@proves("git.logins")
def test_only_a_fetch_from_an_origin_asks_the_helpers_of_the_person_and_no_argument_tells_them(
    tmp_path: Path, monkeypatch
):
    (tmp_path / ".gitconfig").write_text(
        f'[credential "https://example.org"]\n\thelper = "!echo password={SECRET}"\n'
        "[core]\n\tsshCommand = touch /tmp/never\n[http]\n\tproxy = http://localhost:9\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    asked = ["config", "--get-regexp", r"^(credential|core\.sshcommand|http)"]

    def said(**how: bool) -> str:
        return wait(git.run_async(asked, tmp_path, **how)).text

    with_logins = said(logins=True)
    assert SECRET in with_logins
    assert "http.proxy" in with_logins
    assert "touch" not in with_logins, "nothing else of that file counts"
    assert SECRET not in said()
    assert SECRET not in " ".join(git.command(asked, logins=True))


@proves("git.logins")
@pytest.mark.parametrize(("written", "verifies"), [("sslVerify", "true"), ("sslVerify =", "false")])
def test_a_setting_without_a_value_is_true_and_one_with_an_empty_value_is_false(
    tmp_path: Path, monkeypatch, written: str, verifies: str
):
    (tmp_path / ".gitconfig").write_text(f"[http]\n\t{written}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    asked = ["config", "--type=bool", "--get", "http.sslVerify"]
    assert wait(git.run_async(asked, tmp_path, logins=True)).text == verifies
