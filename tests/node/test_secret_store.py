"""Where secrets lie, who gets them, and what is refused: one contract over the three places."""

import os
import stat
import threading
from collections.abc import Callable
from typing import NamedTuple

import pytest
from tests.node.memory_keyring import Keyring
from tests.promise import proves

from muster.errors import Broken, Conflict, Malformed, MusterError, NotFound, Refused, Unreachable
from muster.node.host import keychain
from muster.node.host.secret_index import GRANTS_MAX, SECRETS_MAX
from muster.node.host.secret_store import CREDENTIALS, SecretStore
from muster.node.host.secret_value import VALUE_BYTES_MAX, plain
from muster.task.secret import Grant, Wanted

VALUE, NAME = "canary-4f1c88-value", "DEPLOY_TOKEN"
WORK = Wanted((NAME,), "release", "publish")
GRANT = Grant("shell", "release", "publish")
KEY = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA7\ntail==\n-----END KEY-----\n"
MEMORY = (("tests.node.memory_keyring", "Keyring"),)


class Held(NamedTuple):
    """A store of one place, and how a value comes there."""

    store: SecretStore
    place: str
    put: Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _own_keychain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keychain, "BACKENDS", ())
    monkeypatch.setattr(keychain, "ANSWER_S", 5.0)
    Keyring.values.clear()
    Keyring.locked = False


@pytest.fixture(params=["keychain", "credential", "file"])
def held(request, tmp_path, monkeypatch) -> Held:
    home, placed = tmp_path / "home", tmp_path / "credentials"
    home.mkdir(mode=0o700)
    placed.mkdir()
    if request.param == "keychain":
        monkeypatch.setattr(keychain, "BACKENDS", MEMORY)
    store = SecretStore(home, {CREDENTIALS: str(placed)})

    def put(name: str, value: str) -> None:
        if request.param == "credential":
            (placed / name).write_bytes(value.encode())
            (placed / name).chmod(0o400)
        else:
            assert store.put(name, value, 1) == request.param

    return Held(store, request.param, put)


@pytest.fixture
def files(tmp_path) -> SecretStore:
    (tmp_path / "home").mkdir(mode=0o700)
    return SecretStore(tmp_path / "home")


def given(store: SecretStore, now_ms: int = 10, work: Wanted = WORK, agent: str = "shell") -> dict:
    return dict(store.taken(work, agent, now_ms).given)


# --- the contract ---------------------------------------------------------------------------------


@proves("secret.contract")
@pytest.mark.parametrize("value", [VALUE, KEY, "päss wörd 密碼 123", "x" * VALUE_BYTES_MAX])
def test_what_was_kept_is_given_as_it_was_to_the_attempt_that_was_granted_it(held, value):
    held.put(NAME, value)
    held.store.grant(NAME, GRANT)
    assert given(held.store) == {NAME: value}
    assert held.store.known()[NAME].place == held.place
    # Another program of the same home reads the same.
    again = SecretStore(held.store.home, {CREDENTIALS: str(held.store._credentials)})
    assert given(again) == {NAME: value}


@proves("secret.default-deny")
@pytest.mark.parametrize(
    ("agent", "spec", "phase"),
    [("claude", "release", "publish"), ("shell", "other", "publish"), ("shell", "release", "test"),
     ("shell", "release", "publish2"), ("shellx", "release", "publish"), ("", "", "")],
)  # fmt: skip
def test_no_other_attempt_gets_it_and_before_a_grant_nobody(held, agent, spec, phase):
    held.put(NAME, VALUE)
    with pytest.raises(Broken, match="grant"):
        given(held.store)
    held.store.grant(NAME, GRANT)
    with pytest.raises(Broken, match=NAME) as refused:
        given(held.store, work=Wanted((NAME,), spec, phase), agent=agent)
    assert VALUE not in str(refused.value)


@proves("secret.taken-back")
def test_a_grant_that_ended_or_was_taken_back_gives_nothing_from_then_on(held):
    held.put(NAME, VALUE)
    held.store.grant(NAME, Grant("*", "rel*", "*", 0, until_ms=100))
    assert given(held.store, 99) == {NAME: VALUE}
    assert held.store.facts(99) == {f"secret:{NAME}/*/rel*/*": ""}
    with pytest.raises(Broken, match="ran out"):
        given(held.store, 100)
    assert held.store.facts(100) == {}
    held.store.grant(NAME, GRANT)
    assert given(held.store, 100) == {NAME: VALUE}
    gone = held.store.revoke(NAME, lambda grant: grant.spec == "release")
    assert gone == [GRANT]
    with pytest.raises(Broken):
        given(held.store, 100)
    with pytest.raises(NotFound):
        held.store.revoke(NAME, lambda grant: grant.spec == "release")


@proves("secret.taken-back")
def test_what_was_removed_is_nowhere_and_granted_to_nobody(held):
    held.put(NAME, VALUE)
    held.store.grant(NAME, GRANT)
    if held.place == "credential":
        with pytest.raises(Conflict, match="unit"):
            held.store.remove(NAME)
        assert given(held.store) == {NAME: VALUE}, "what is refused changes nothing"
        return
    assert held.store.remove(NAME) == held.place
    assert held.store.known() == {}
    assert Keyring.values == {}
    assert not any(VALUE in p.read_text() for p in held.store.folder.iterdir())
    # Whoever sets it again begins without a grant.
    held.put(NAME, VALUE)
    with pytest.raises(Broken, match="is missing"):
        given(held.store)
    with pytest.raises(NotFound):
        held.store.remove("OTHER")


@proves("secret.set-anew")
def test_a_value_that_was_set_anew_keeps_its_grants_and_counts_at_once(held):
    held.put(NAME, VALUE)
    held.store.grant(NAME, GRANT)
    if held.place == "credential":
        (held.store._credentials / NAME).unlink()
    held.put(NAME, f"{VALUE}-new")
    assert given(held.store) == {NAME: f"{VALUE}-new"}


@proves("secret.no-value-shown")
def test_the_index_and_the_facts_have_names_and_no_value(held):
    held.put(NAME, VALUE)
    held.put("QUIET", f"{VALUE}-2")
    held.store.grant(NAME, GRANT)
    assert VALUE not in (held.store.folder / "index.json").read_text()
    assert held.store.facts(1) == {f"secret:{NAME}/shell/release/publish": ""}, "QUIET is private"
    assert sorted(held.store.known()) == [NAME, "QUIET"]


@proves("secret.masked")
def test_what_every_program_of_the_user_can_read_is_hidden_granted_or_not(held):
    held.put(NAME, VALUE)
    asked = held.place == "keychain"
    assert held.store.hidden() == ({} if asked else {NAME: VALUE})
    held.store.grant(NAME, GRANT)
    assert held.store.taken(WORK, "shell", 1).hidden == {NAME: VALUE}


@proves("secret.contract")
def test_a_secret_that_is_not_there_any_more_is_said_by_name(held):
    held.put(NAME, VALUE)
    held.store.grant(NAME, GRANT)
    Keyring.values.clear()
    for each in (held.store.folder / NAME, held.store._credentials / NAME):
        each.unlink(missing_ok=True)
    with pytest.raises(MusterError, match=NAME):
        given(held.store)
    assert held.store.lack(NAME, held.place) != ""


# --- what is a value, a name, a grant --------------------------------------------------------------


@proves("secret.bounds")
@pytest.mark.parametrize(
    "value", ["", "seven77", "       1       ", "with\0nul-and-more", "x" * (VALUE_BYTES_MAX + 1),
              "\ud800-surrogate"],
)  # fmt: skip
def test_a_value_that_could_not_be_hidden_or_given_is_refused_and_not_quoted(files, value):
    with pytest.raises(Malformed) as refused:
        files.put(NAME, value, 1)
    assert not value.strip() or value.strip() not in str(refused.value)
    assert files.known() == {}
    assert not (files.folder / NAME).exists()


@proves("secret.bounds")
@pytest.mark.parametrize(
    "name", ["", "a", "deploy_token", "MUSTER_HOME", "../X", "A/B", "A" * 65, "PATH", "HOME",
             "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "1A", "A-B", "Ä"],
)  # fmt: skip
def test_a_name_that_no_spec_can_say_or_that_every_program_needs_is_refused(files, name):
    with pytest.raises(Malformed):
        files.put(name, VALUE, 1)
    assert not files.folder.exists()


@proves("secret.bounds")
@pytest.mark.parametrize("pattern", ["", "a/b", "A", "a" * 41, "*****", "-a", "a b", "*\n", "a.b"])
def test_a_pattern_that_is_none_is_refused(files, pattern):
    files.put(NAME, VALUE, 1)
    for grant in (Grant(pattern, "b", "c"), Grant("a", pattern, "c"), Grant("a", "b", pattern)):
        with pytest.raises(Malformed):
            files.grant(NAME, grant)
    assert files.known()[NAME].grants == ()


@proves("secret.bounds")
def test_there_are_so_many_secrets_and_grants_and_no_more(files):
    for number in range(SECRETS_MAX):
        files.put(f"S{number}", VALUE, 1)
    with pytest.raises(Refused, match=str(SECRETS_MAX)):
        files.put("MORE", VALUE, 1)
    files.put("S0", f"{VALUE}-new", 2)
    for number in range(GRANTS_MAX):
        files.grant(f"S{number % SECRETS_MAX}", Grant("shell", f"s{number}", "*"))
    with pytest.raises(Refused, match=str(GRANTS_MAX)):
        files.grant("S0", Grant("shell", "more", "*"))
    files.grant("S0", Grant("shell", "s0", "*", until_ms=5))
    assert len(files.facts(1)) == GRANTS_MAX
    assert all(len(key) <= 200 for key in files.facts(1))
    longest = Grant("a" * 40, "b" * 40, "c" * 40)
    assert len(f"secret:{'N' * 64}/{longest.attempts}") <= 200, "as long as a fact may be"


@proves("secret.bounds")
def test_what_lies_in_files_together_has_a_bound_and_is_no_more_when_it_is_set_anew(files):
    for name in ("A", "B", "C", "D"):
        files.put(name, "x" * VALUE_BYTES_MAX, 1)
    files.put("D", "y" * VALUE_BYTES_MAX, 2)
    with pytest.raises(Refused, match="64 KiB"):
        files.put("E", "y" * 8, 2)
    assert "E" not in files.known()
    files.put("D", "short-now", 3)
    files.put("E", "y" * 8, 3)


@proves("secret.set-plain")
@pytest.mark.parametrize(
    ("raw", "value"),
    [(b"abc defgh\n", "abc defgh"), (b"abc defgh\r\n", "abc defgh"), (b"abc defgh", "abc defgh"),
     (KEY.encode(), KEY), (b"one\ntwo", "one\ntwo")],
)  # fmt: skip
def test_the_end_of_the_only_line_is_none_of_the_value_and_several_lines_stay(raw, value):
    assert plain(raw) == value


@proves("secret.set-plain")
@pytest.mark.parametrize("raw", [b"\xff\xfecanary", b"x" * (VALUE_BYTES_MAX + 1)])
def test_what_is_no_text_or_too_long_is_refused_without_a_word_of_it(raw):
    with pytest.raises(Malformed) as refused:
        plain(raw)
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None


# --- files -------------------------------------------------------------------------------------------


@proves("secret.file-modes")
def test_a_file_is_its_owners_alone_in_a_folder_of_its_own_whatever_the_umask(files):
    before = os.umask(0)
    try:
        files.put(NAME, VALUE, 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in files.folder.iterdir()} == {0o600}
    assert sorted(p.name for p in files.folder.iterdir()) == [NAME, "index.json"]


@proves("secret.file-modes")
@pytest.mark.parametrize("what", [NAME, "index.json", "."])
def test_what_others_could_read_is_not_used_and_doctor_says_so(files, what):
    files.put(NAME, VALUE, 1)
    files.grant(NAME, GRANT)
    assert list(files.faults()) == []
    mode = stat.S_IMODE((files.folder / what).stat().st_mode)
    (files.folder / what).chmod(mode | 0o040)
    with pytest.raises(Broken, match="chmod"):
        given(files)
    assert any("chmod" in mend for _, mend in files.faults())
    (files.folder / what).chmod(mode)
    assert given(files) == {NAME: VALUE}


@proves("secret.file-modes")
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "foreign"])
def test_what_is_no_plain_file_of_its_owner_is_not_read(files, tmp_path, kind, monkeypatch):
    files.put(NAME, VALUE, 1)
    files.grant(NAME, GRANT)
    path, other = files.folder / NAME, tmp_path / "other"
    other.write_text("canary-of-another-file")
    other.chmod(0o600)
    if kind == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file to another user")
        os.chown(path, 12345, 12345)
    else:
        path.unlink()
        match kind:
            case "link":
                path.symlink_to(other)
            case "pipe":
                os.mkfifo(path, 0o600)
            case "folder":
                path.mkdir(mode=0o700)
    with pytest.raises(MusterError) as refused:
        given(files)
    assert str(path) in str(refused.value)
    assert list(files.faults())


@proves("secret.file-modes")
def test_a_folder_that_is_a_link_is_refused_before_anything_is_written(files, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    files.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Broken, match="no folder"):
        files.put(NAME, VALUE, 1)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@proves("secret.file-modes")
def test_a_damaged_index_gives_nothing_and_is_named(files):
    files.put(NAME, VALUE, 1)
    for raw in (b"{", b"[]", b'{"v":2}', b"{}" + b" " * (256 * 1024),
                b'{"secrets":{"X":{"place":"file","grants":[{"agent":"*","spec":"/","phase":"*"}]}}}'):  # fmt: skip
        (files.folder / "index.json").write_bytes(raw)
        with pytest.raises(Broken, match=r"index\.json"):
            given(files)


@proves("secret.file-modes")
def test_what_a_killed_command_left_half_written_is_swept_by_the_next(files):
    files.put(NAME, VALUE, 1)
    (files.folder / ".tmp-abc").write_text("half a canary")
    files.grant(NAME, GRANT)
    assert sorted(p.name for p in files.folder.iterdir()) == [NAME, "index.json"]


# --- the keychain -----------------------------------------------------------------------------------


@proves("secret.real-keychains")
def test_only_keychains_of_the_list_count_whatever_the_librarys_own_settings_name(
    files, monkeypatch
):
    real = {"keyring.backends.macOS", "keyring.backends.SecretService", "keyring.backends.kwallet",
            "keyring.backends.Windows"}  # fmt: skip
    monkeypatch.undo()
    assert {module for module, _ in keychain.BACKENDS} == real
    monkeypatch.setattr(keychain, "BACKENDS", (("tests.node.memory_keyring", "Absent"),))
    # A backend that the library would take, by its own word.
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.node.memory_keyring.Keyring")
    assert keychain.find() is None
    assert files.put(NAME, VALUE, 1) == "file"
    with pytest.raises(NotFound, match="extra"):
        files.put("OTHER", VALUE, 1, "keychain")


@proves("secret.real-keychains")
def test_a_keychain_that_keeps_nothing_is_found_out_and_what_was_there_stays(files, monkeypatch):
    files.put(NAME, VALUE, 1)
    files.grant(NAME, GRANT)
    monkeypatch.setattr(keychain, "BACKENDS", (("tests.node.memory_keyring", "Forgetful"),))
    with pytest.raises(NotFound):
        files.put(NAME, f"{VALUE}-new", 2)
    assert given(files) == {NAME: VALUE}


@proves("secret.real-keychains")
def test_a_locked_keychain_is_said_and_what_it_says_is_not_repeated(files, monkeypatch):
    monkeypatch.setattr(keychain, "BACKENDS", MEMORY)
    files.put(NAME, VALUE, 1)
    files.grant(NAME, GRANT)
    Keyring.locked = True
    with pytest.raises(Unreachable, match="unlock it") as refused:
        given(files)
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


@proves("secret.real-keychains")
def test_a_keychain_that_waits_for_its_person_keeps_nobody_for_ever(files, monkeypatch):
    monkeypatch.setattr(keychain, "BACKENDS", MEMORY)
    files.put(NAME, VALUE, 1)
    files.grant(NAME, GRANT)
    monkeypatch.setattr(keychain, "ANSWER_S", 0.05)
    forever = threading.Event()
    monkeypatch.setattr(Keyring, "get_password", lambda *_: forever.wait(30))
    with pytest.raises(Unreachable, match="not answered"):
        given(files)
    forever.set()


@proves("secret.one-place")
def test_a_secret_moves_from_one_place_to_the_other_and_is_in_one_alone(files, monkeypatch):
    files.put(NAME, VALUE, 1)
    files.grant(NAME, GRANT)
    monkeypatch.setattr(keychain, "BACKENDS", MEMORY)
    assert files.put(NAME, f"{VALUE}-2", 2) == "keychain"
    assert not (files.folder / NAME).exists()
    assert list(Keyring.values.values()) == [f"{VALUE}-2"]
    assert given(files) == {NAME: f"{VALUE}-2"}
    assert files.put(NAME, f"{VALUE}-3", 3, "file") == "file"
    assert Keyring.values == {}
    assert given(files) == {NAME: f"{VALUE}-3"}


@proves("secret.one-place")
def test_two_homes_of_one_user_have_each_its_own_in_one_keychain(tmp_path, monkeypatch):
    monkeypatch.setattr(keychain, "BACKENDS", MEMORY)
    stores = [SecretStore(tmp_path / name) for name in ("one", "two")]
    for number, store in enumerate(stores):
        store.home.mkdir()
        store.put(NAME, f"{VALUE}-{number}", 1)
        store.grant(NAME, GRANT)
    assert [given(store)[NAME] for store in stores] == [f"{VALUE}-0", f"{VALUE}-1"]


# --- credentials -----------------------------------------------------------------------------------


@proves("secret.credentials")
def test_a_credential_is_read_only_and_what_is_no_secret_in_its_folder_is_left_out(tmp_path):
    (tmp_path / "home").mkdir()
    placed = tmp_path / "credentials"
    placed.mkdir()
    for name in (NAME, "lower", "MUSTER_X", "PATH"):
        (placed / name).write_text(VALUE)
        (placed / name).chmod(0o440)
    store = SecretStore(tmp_path / "home", {CREDENTIALS: str(placed)})
    assert {n: k.place for n, k in store.known().items()} == {NAME: "credential"}
    with pytest.raises(Conflict, match="unit"):
        store.put(NAME, VALUE, 1)
    store.grant(NAME, GRANT)
    assert given(store) == {NAME: VALUE}
    (placed / NAME).chmod(0o444)
    with pytest.raises(Broken, match="everybody"):
        given(store)
    # Whoever is not the daemon sees none, and the daemon of a unit without it neither.
    with pytest.raises(NotFound, match="unit"):
        given(SecretStore(tmp_path / "home"))
    with pytest.raises(NotFound, match="unit"):
        given(SecretStore(tmp_path / "home", {CREDENTIALS: "relative"}))
