"""Which incarnation goes on: any doubt about the database means a new one."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.promise import proves

from muster.errors import Broken
from muster.fleet import certificate
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.record import open_record, sign_binding, sign_operator, sign_record
from muster.node import installation
from muster.node.daemon import Daemon
from muster.node.host import clock
from muster.node.host.home import Home
from muster.node.incidents import Noticed
from muster.node.installation import Installation
from muster.node.parts import PARTS
from muster.task.enclosure import Doer, Terms, decide
from muster.verbs.table import VERBS


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MUSTER_STATE", str(tmp_path / "state"))
    made, now = Home(tmp_path / "home"), clock.read().wall_ms
    authority, identity = Authority(b"a" * 32), Identity(b"m" * 32)
    operator = Operator(b"o" * 32)
    binding = sign_binding(identity, authority.fleet, "hub")
    record = sign_record(authority, binding, roles=["hub"], serial=1, issued_ms=now)
    certificates = certificate.issue(authority, open_record(record, authority.fleet), now)
    made.create()
    made.put_seed("seed", b"m" * 32)
    facts = {
        "fleet": authority.fleet,
        "record": record.decode(),
        "operators": [sign_operator(authority, operator.key, "alice", now).decode()],
        "machines": [],
        "ca": certificates.ca_pem.decode(),
        "certificate": certificates.tls_pem.decode(),
    }
    made.put_facts(facts)
    return made


def incarnation(home: Home) -> tuple[str, tuple[str, ...]]:
    """Start and stop once: the incarnation, and the doubts about the one before."""
    made = Installation(home, PARTS)
    core = made.core(VERBS)
    core.start(clock.read())
    made.close()
    return core.membership.incarnation, made.doubts


@proves("node.doubt-means-new")
def test_an_ordinary_restart_goes_on(home):
    first, _ = incarnation(home)
    assert incarnation(home) == (first, ())


@proves("node.doubt-means-new")
def test_a_crash_that_left_no_farewell_goes_on(home):
    first, _ = incarnation(home)
    made = Installation(home, PARTS)
    core = made.core(VERBS)
    core.start(clock.read())
    core.step([], clock.read())
    made.store.close()
    assert incarnation(home) == (first, ())


@proves("node.doubt-means-new")
@pytest.mark.parametrize("what", ["mark-gone", "mark-ahead", "mark-damaged", "machine-id", "vm"])
def test_every_sign_of_a_copy_begins_a_new_incarnation(home, monkeypatch, what):
    first, _ = incarnation(home)
    mark = Path(home.mark_folder) / "mark.json"
    if what == "mark-gone":
        mark.unlink()
    elif what == "mark-damaged":
        mark.write_text("{")
    elif what == "mark-ahead":
        found = json.loads(mark.read_text())
        found["sizes"] = {name: size + 1 for name, size in found["sizes"].items()}
        mark.write_text(json.dumps(found))
    else:
        path = installation._MACHINE_ID if what == "machine-id" else installation._GENERATION
        plain = installation._read
        monkeypatch.setattr(installation, "_read", lambda p: "other" if p == path else plain(p))
    second, doubts = incarnation(home)
    assert second != first
    assert len(doubts) == 1
    third, doubts = incarnation(home)
    assert (third, doubts) == (second, ()), "one doubt, one new incarnation"


@proves("node.doubt-means-new")
def test_an_incarnation_whose_stream_forked_does_not_go_on(home):
    first, _ = incarnation(home)
    made = Installation(home, PARTS)
    stream = next(
        s for s in made.store.log.streams() if s.incarnation == first and s.scope == "fleet"
    )
    with made.store.transaction():
        made.store.freeze(stream, 1, b"proof", 1)
    made.store.close()
    second, doubts = incarnation(home)
    assert second != first
    assert any("fork" in doubt for doubt in doubts)


@proves("fleet.renamed")
@pytest.mark.parametrize("writes", range(4))
def test_a_power_cut_between_the_writes_of_a_new_name_leaves_a_home_that_starts(
    home, monkeypatch, writes
):
    home.put("config.toml", b'name = "hub"\n')
    authority, identity, now = Authority(b"a" * 32), Identity(b"m" * 32), clock.read().wall_ms
    binding = sign_binding(identity, authority.fleet, "forge")
    raw = sign_record(authority, binding, roles=["hub"], serial=2, issued_ms=now)
    issued = certificate.issue(authority, open_record(raw, authority.fleet), now)
    made, put, done = Installation(home, PARTS), Home.put, []
    made.authority = authority

    class Cut(Exception):
        pass

    def put_until(self: Home, name: str, content: bytes) -> None:
        if len(done) == writes:
            raise Cut
        done.append(name)
        put(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Home, "put", put_until)
        if writes < 3:
            with pytest.raises(Cut):
                made.renewed_here(open_record(raw, authority.fleet), now)
        else:
            made.renewed_here(open_record(raw, authority.fleet), now)
    made.store.close()
    again = Installation(home, PARTS)
    shown = open_record(str(again.facts["record"]).encode(), authority.fleet).name
    # The record and the certificate are of one name, and config.toml never says the other one.
    assert shown == ("hub" if writes < 2 else "forge")
    assert again.config.name in ("", shown)
    assert (again.facts["certificate"] == issued.tls_pem.decode()) is (shown == "forge")
    assert done == ["config.toml", "fleet.json", "config.toml"][:writes]
    again.close()


@proves("fleet.renamed")
def test_a_name_that_config_toml_cannot_be_told_keeps_no_certificate_back_and_is_an_incident(home):
    text = b'name = """hub"""\n'
    home.put("config.toml", text)
    authority, identity, now = Authority(b"a" * 32), Identity(b"m" * 32), clock.read().wall_ms
    binding = sign_binding(identity, authority.fleet, "forge")
    raw = sign_record(authority, binding, roles=["hub"], serial=2, issued_ms=now)
    made, record = Installation(home, PARTS), open_record(raw, authority.fleet)
    made.authority = authority
    before = made.facts["certificate"]
    assert made.renewed_here(record, now)
    assert made.facts["record"] == raw.decode()
    assert made.facts["certificate"] != before
    assert not made.renewal_due(record, now)
    assert (home.path / "config.toml").read_bytes() == text
    posted, is_open = [], []
    daemon = SimpleNamespace(
        machine=made,
        core=SimpleNamespace(incidents=SimpleNamespace(is_open=lambda _key: bool(is_open))),
        post=posted.append,
    )
    Daemon._tell_name(daemon)
    made.store.close()
    (told,) = posted
    assert "this machine is forge now, and config.toml does not say so" in told.title
    with pytest.raises(Broken, match="write 'forge'"):
        Installation(home, PARTS)
    # As the person was told.
    home.put("config.toml", b'name = "forge"\n')
    daemon.machine = Installation(home, PARTS)
    daemon.machine.store.close()
    Daemon._tell_name(daemon)
    assert len(posted) == 1
    is_open.append(True)
    Daemon._tell_name(daemon)
    assert posted[1:] == [Noticed(told.key)]


@proves("openings.never-ours")
def test_no_work_is_shown_what_the_daemon_has_wherever_its_socket_lies(home, tmp_path, monkeypatch):
    """Whoever decides: the machine that is given it, and the one that begins it."""
    runtime = tmp_path / "runtime"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    long = Home(home.path.rename(tmp_path / ("h" * 120)))
    here = Installation(long, PARTS).here()
    assert here.never == long.own_folders
    terms = Terms(read=(str(tmp_path),))
    for path in (runtime, Path(long.socket_of_session).parent, tmp_path / "state", long.path):
        shown = {"agent": ["shell"], "paths": {"read": [str(path)]}}
        assert "belongs to Muster itself" in decide(shown, Doer("shell"), terms, here).refusal
    shown = {"agent": ["shell"], "paths": {"read": [str(tmp_path / "data")]}}
    assert not decide(shown, Doer("shell"), terms, here).refusal
