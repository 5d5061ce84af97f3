"""Two real homes and their daemons: from `init` to a run that both can account for, and down."""

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from muster.fleet.invite import read_invite, write_invite
from tests.cli.world import environment, everything_in, muster
from tests.ports import free_port
from tests.promise import proves

pytestmark = pytest.mark.e2e

SPEC = """\
muster: 1
name: greeting
repo: main
phases:
  one:
    agent: shell
    do: echo "hello" > one.txt
    deliver: one.txt
  two:
    agent: shell
    after: one
    do: cat one.txt one.txt > two.txt
    deliver: two.txt
"""
FAILING = """\
muster: 1
name: failing
repo: main
phases:
  only:
    agent: shell
    do: exit 3
    deliver: nothing.txt
"""


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Pair:
    """A hub with the operator's key, and a laptop that joined it."""

    def __init__(self, folder: Path) -> None:
        self.hub, self.laptop, self.folder = folder / "hub", folder / "laptop", folder

    def ok(self, home: Path, *words: str):
        said = muster(home, *words, "--json")
        assert said.code == 0, (words, said)
        lines = said.out.strip().splitlines()
        return json.loads(lines[-1]) if lines else None

    def begin(self) -> None:
        address = f"127.0.0.1:{free_port()}"
        self.ok(self.hub, "init", "--name", "hub", "--operator", "alice", "--listen", address)
        self.ok(self.hub, "up", "--detach")
        invitation = self.ok(self.hub, "invite", "laptop")["invitation"]
        self.ok(self.laptop, "join", invitation, "--label", "portable")
        self.ok(self.laptop, "up", "--detach")
        source = self.folder / "source"
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(source)]
        source.mkdir()
        (source / "README").write_text("hello\n")
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
            subprocess.run([*git, *words], check=True)
        self.ok(self.hub, "repo", "add", "main", str(source))
        # A message that is stored at the other end proves that both ends are linked.
        self.ok(self.hub, "send", "laptop", "welcome", "--wait")

    def end(self) -> None:
        for home in (self.laptop, self.hub):
            if (home / "run" / "pid").exists():
                muster(home, "down")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    found = Pair(tmp_path_factory.mktemp("pair"))
    try:
        found.begin()
        yield found
    finally:
        found.end()


@proves("cli.join")
def test_a_machine_that_joined_is_in_the_fleet_under_its_name(pair):
    machines = {m["name"]: m for m in pair.ok(pair.hub, "machines")}
    assert machines["laptop"]["state"] == "up"
    assert machines["laptop"]["facts"]["labels"] == ["portable"]
    assert {m["name"] for m in pair.ok(pair.laptop, "machines")} == {"hub", "laptop"}
    assert not (pair.laptop / "joining.seed").exists()
    assert not (pair.laptop / "operator.seed").exists()


@proves("cli.up-once")
def test_a_second_up_says_that_one_runs_and_changes_nothing(pair):
    before = (pair.hub / "run" / "pid").read_text()
    for words in (("up",), ("up", "--detach")):
        said = muster(pair.hub, *words)
        assert (said.code, "runs already" in said.err) == (6, True)
    assert (pair.hub / "run" / "pid").read_text() == before
    assert muster(pair.hub, "status").code == 0


@proves("cli.join-leaves-nothing")
def test_an_invitation_counts_once_and_a_refused_newcomer_has_nothing(pair, tmp_path):
    invitation = pair.ok(pair.hub, "invite", "tablet")["invitation"]
    wrong = muster(tmp_path / "a", "join", invitation, "--name", "phone")
    assert (wrong.code, "tablet" in wrong.err) == (3, True)
    assert muster(tmp_path / "b", "join", invitation).code == 0
    spent = muster(tmp_path / "c", "join", invitation)
    assert (spent.code, "used" in spent.err) == (3, True)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "c").exists()


@proves("cli.join-says-what-to-do")
@pytest.mark.parametrize("answers", ["nobody", "something else", "no name"])
def test_a_join_that_reaches_no_hub_says_why_and_what_to_do_and_spends_nothing(
    pair, tmp_path, answers
):
    name = f"far-{answers.split()[0]}"
    invitation = pair.ok(pair.hub, "invite", name)["invitation"]
    real = read_invite(invitation.partition("#")[0])
    port, why = free_port(), "connection refused"
    address = f"127.0.0.1:{port}"
    if answers == "no name":
        address, why = "nowhere.invalid:7447", "no computer of this name"
    with socket.socket() as listener:
        if answers == "something else":
            why = "no machine of a fleet"
            listener.bind(("127.0.0.1", port))
            listener.listen()
            threading.Thread(target=_greet, args=(listener,), daemon=True).start()
        bent = write_invite(real.fleet, real.token, address)
        said = muster(tmp_path / "home", "join", f"{bent}#{name}")
    last = said.err.strip().splitlines()[-1]
    assert said.code == 7
    assert why in last
    assert "give the same command again" in last
    assert not (tmp_path / "home").exists()
    assert muster(tmp_path / "home", "join", invitation).code == 0


def _greet(listener: socket.socket) -> None:
    link, _ = listener.accept()
    with link, contextlib.suppress(ConnectionError):
        link.recv(64)
        link.sendall(b"220 mail.example ready\r\n")


@proves("cli.join-again")
def test_a_join_whose_answer_was_lost_is_given_again_with_the_same_key(pair, tmp_path):
    invitation = pair.ok(pair.hub, "invite", "watch")["invitation"]
    first = pair.ok(tmp_path / "home", "join", invitation)
    # As after a lost answer: the hub knows us, and here is nothing but the seed.
    seed = (tmp_path / "home" / "seed").read_bytes()
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "joining.seed").write_bytes(seed)
    (tmp_path / "home" / "joining.seed").chmod(0o600)
    assert pair.ok(tmp_path / "home", "join", invitation)["machine"] == first["machine"]


@proves("cli.join-pins")
def test_a_newcomer_shows_its_token_to_no_hub_of_another_fleet(pair, tmp_path):
    invitation = pair.ok(pair.hub, "invite", "victim")["invitation"]
    other, port = tmp_path / "other", free_port()
    pair.ok(other, "init", "--name", "evil", "--listen", f"127.0.0.1:{port}")
    pair.ok(other, "up", "--detach")
    try:
        real = read_invite(invitation.partition("#")[0])
        bent = write_invite(real.fleet, real.token, f"127.0.0.1:{port}")
        said = muster(tmp_path / "home", "join", f"{bent}#victim")
        assert (said.code, "is another machine" in said.err) == (7, True)
        # One that answers whoever dials, as older ones do.
        pair.ok(other, "down")
        with open(other / "config.toml", "a", encoding="utf-8") as config:
            config.write("channel.http.strangers = true\n")
        pair.ok(other, "up", "--detach")
        said = muster(tmp_path / "home", "join", f"{bent}#victim")
        assert (said.code, "is not the fleet that invited" in said.err) == (3, True)
        assert not (tmp_path / "home").exists()
    finally:
        assert muster(other, "down").code == 0
    # The token is still good: nobody saw it.
    assert muster(tmp_path / "home", "join", invitation).code == 0


@proves("cli.orders-need-the-key")
def test_a_machine_without_the_operators_key_orders_nothing(pair):
    said = muster(pair.laptop, "invite", "friend")
    assert (said.code, "operator.seed" in said.err) == (4, True)
    assert "friend" not in {m["name"] for m in pair.ok(pair.hub, "machines")}


@proves("cli.a-worker-reads-what-is-its-own")
@pytest.mark.parametrize(("label", "code"), [("portable", 0), ("", 4)])
def test_a_worker_without_the_operators_key_reads_what_lies_on_it(pair, tmp_path, label, code):
    assert [r["name"] for r in pair.ok(pair.laptop, "repo", "list")] == ["main"]
    assert "hub" in muster(pair.laptop, "repo", "list").out
    needs = f"label: {label}" if label else "machine: hub"
    spec = tmp_path / "said.yaml"
    spec.write_text(
        f"muster: 1\nname: said{code}\nphases:\n  one:\n    needs: {{{needs}}}\n"
        "    agent: shell\n    do: echo said aloud\n    check: 'true'\n"
    )
    assert muster(pair.hub, "run", str(spec)).code == 0
    task = pair.ok(pair.hub, "runs", pair.ok(pair.hub, "runs")[0]["run"])["tasks"][0]["task"]
    said = muster(pair.laptop, "logs", task)
    assert (said.code, "said aloud" in said.out) == (code, code == 0)
    if code:
        assert "type `muster logs" in said.err
        assert "on hub" in said.err
        assert said.err.count("\n") == 1


@proves("cli.run-follows")
def test_a_run_is_followed_to_its_end_and_its_exit_code_says_how_it_ended(pair):
    (pair.folder / "good.yaml").write_text(SPEC)
    (pair.folder / "bad.yaml").write_text(FAILING)
    good = muster(pair.hub, "run", str(pair.folder / "good.yaml"))
    assert good.code == 0, good
    assert "two: done" in good.out
    assert "greeting" in good.out
    bad = muster(pair.hub, "run", str(pair.folder / "bad.yaml"), "--json")
    assert bad.code == 1
    last = json.loads(bad.out.strip().splitlines()[-1])
    assert (last["state"], last["tasks"][0]["state"]) == ("failed", "failed")


@proves("cli.run-follows")
def test_a_spec_that_cannot_run_is_refused_with_line_and_column(pair):
    file = pair.folder / "wrong.yaml"
    file.write_text(SPEC.replace("agent: shell", "agnt: shell", 1))
    check = muster(pair.hub, "check", str(file))
    assert (check.code, f"{file}:6:5: error" in check.out) == (1, True)
    runs = len(pair.ok(pair.hub, "runs"))
    said = muster(pair.hub, "run", str(file))
    assert (said.code, f"{file}:6:5: error" in said.err) == (3, True)
    assert len(pair.ok(pair.hub, "runs")) == runs


@proves("cli.on-others")
def test_any_verb_asks_another_machine_all_or_those_with_a_label(pair):
    assert pair.ok(pair.hub, "status", "--on", "laptop")["name"] == "laptop"
    everybody = muster(pair.hub, "status", "--on", "all", "--json")
    assert everybody.value["laptop"]["name"] == "laptop"
    assert everybody.value["hub"]["name"] == "hub"
    # Machines that joined and never ran are away; the exit code says that not all answered.
    away = [v for v in everybody.value.values() if "error" in v]
    assert everybody.code == (7 if away else 0)
    assert list(pair.ok(pair.hub, "status", "--on", "label=portable")) == ["laptop"]
    assert list(pair.ok(pair.hub, "status", "--on", "role=hub")) == ["hub"]
    assert list(pair.ok(pair.hub, "status", "--on", "laptop,hub")) == ["hub", "laptop"]
    assert muster(pair.hub, "status", "--on", "nobody").code == 5
    assert muster(pair.laptop, "status", "--on", "hub").code == 4


@proves("cli.on-others")
def test_each_machine_stands_under_its_name_and_the_worst_code_counts(pair, tmp_path):
    joined = pair.ok(pair.hub, "invite", "never-up")["invitation"]
    assert muster(tmp_path / "home", "join", joined).code == 0
    said = muster(pair.hub, "machines", "--on", "hub,laptop,never-up")
    assert said.code == 7
    heads = [line for line in said.out.splitlines() if line.startswith("== ")]
    assert heads == ["== hub", "== laptop", "== never-up"]
    assert "muster: never-up is away" in said.out.partition("== never-up")[2]
    assert said.err.splitlines()[-1] == "1 of 3 machines did not: never-up"
    found = muster(pair.hub, "machines", "--on", "hub,laptop,never-up", "--json").value
    assert found["never-up"]["error"]["exit"] == 7
    assert {each["name"] for each in found["laptop"]} >= {"hub", "laptop"}


@proves("cli.on-others")
def test_doctor_and_audit_look_at_other_machines_as_there(pair):
    found = muster(pair.hub, "doctor", "--on", "hub,laptop", "--json")
    codes = [
        int(any(check["state"] == "wrong" for check in each["checks"]))
        for each in found.value.values()
    ]
    assert found.code == max(codes)
    assert list(found.value) == ["hub", "laptop"]
    here = muster(pair.laptop, "doctor", "--json").value
    names = [check["name"] for check in here["checks"]]
    assert [check["name"] for check in found.value["laptop"]["checks"]] == names
    audited = pair.ok(pair.hub, "audit", "verify", "--on", "hub,laptop")
    assert [audited[name]["wrong"] for name in ("hub", "laptop")] == [[], []]
    assert "entries" in muster(pair.hub, "audit", "verify", "--on", "laptop").out
    fix = muster(pair.hub, "doctor", "--fix", "--on", "laptop")
    assert (fix.code, "typed on" in fix.err) == (3, True)
    export = muster(pair.hub, "audit", "export", "x", "--on", "laptop")
    assert (export.code, "folders and files" in export.err) == (3, True)
    denied = muster(pair.laptop, "doctor", "--on", "hub")
    assert denied.code == 4


@proves("cli.plan-first")
def test_a_plan_names_machines_and_loss_and_changes_nothing(pair):
    before = len(pair.ok(pair.hub, "sent"))
    said = muster(pair.hub, "revoke", "laptop", "--plan")
    assert said.code == 0, said
    assert "revoke would be ordered of 1 machine; nothing was sent:\n  hub\n" in said.out
    assert "on:   laptop" in said.out
    assert "lost: " in said.out
    plan = pair.ok(pair.hub, "send", "laptop", "hello", "--on", "role=hub,laptop", "--plan")["plan"]
    assert [each["name"] for each in plan["machines"]] == ["hub", "laptop"]
    assert (plan["verb"], plan["object"]) == ("send", "laptop")
    assert len(pair.ok(pair.hub, "sent")) == before
    assert {m["name"]: m["state"] for m in pair.ok(pair.hub, "machines")}["laptop"] == "up"
    denied = muster(pair.laptop, "revoke", "hub", "--plan")
    assert denied.code == 4


@proves("cli.messages")
def test_a_message_arrives_and_its_sender_sees_how_far_it_came(pair):
    sent = pair.ok(pair.hub, "send", "laptop", "look", "at", "this", "--wait")
    assert sent["state"] == "stored"
    inbox = {m["message"]: m for m in pair.ok(pair.laptop, "inbox", "--mark")}
    assert inbox[sent["message"]]["text"] == "look at this"
    assert pair.ok(pair.laptop, "inbox") == []
    assert any(m["message"] == sent["message"] for m in pair.ok(pair.hub, "sent"))
    shown = muster(pair.hub, "sent").out
    assert "look at this" in shown


@proves("cli.audit")
def test_the_log_of_both_machines_holds_and_an_export_proves_itself(pair, tmp_path):
    for home in (pair.hub, pair.laptop):
        answer = pair.ok(home, "audit", "verify")
        assert answer["wrong"] == []
        assert answer["entries"] > 10
    folder = tmp_path / "export"
    exported = pair.ok(pair.hub, "audit", "export", str(folder))
    script = Path(__file__).parents[2] / "verify" / "muster_verify.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, f"{exported['entries']} entries hold" in done.stdout) == (0, True)
    assert pair.ok(pair.hub, "audit", "verify", "--file", str(folder))["wrong"] == []
    before = everything_in(folder)
    assert muster(pair.hub, "audit", "export", str(folder)).code == 6
    assert everything_in(folder) == before


@proves("cli.audit-damage")
def test_a_changed_entry_is_named_with_stream_and_place_and_exit_code_1(pair, tmp_path):
    copy = tmp_path / "log.db"
    with sqlite3.connect(pair.hub / "log.db") as source, sqlite3.connect(copy) as target:
        source.backup(target)
    clean = muster(pair.hub, "audit", "verify", "--file", str(copy), "--json")
    assert clean.code == 0, clean
    with sqlite3.connect(copy) as damaged:
        damaged.execute("update entry set body = x'7b7d' where id = (select min(id)+2 from entry)")
    said = muster(pair.hub, "audit", "verify", "--file", str(copy), "--json")
    assert said.code == 1
    assert any("seq 2:" in text and "stream" in text for text in said.value["wrong"])


@proves("cli.audit-explain")
def test_explain_leads_from_the_result_back_to_the_operators_order(pair):
    (pair.folder / "why.yaml").write_text(SPEC.replace("greeting", "reasons"))
    muster(pair.hub, "run", str(pair.folder / "why.yaml"))
    task = pair.ok(pair.hub, "tasks", "--all")[0]["task"]
    said = muster(pair.hub, "audit", "explain", task[:10])
    assert said.code == 0
    for word in ("order.take", "op:alice", "run.open", "task.assign", "task.settle", "because of"):
        assert word in said.out
    for called in (r"operator alice \(", r"target hub \(", "grant: what operator alice may"):
        assert re.search(called, said.out)
    # Nobody reads sixty-four digits; a program gets them whole.
    assert not re.search(r"\b[0-9a-f]{64}\b", said.out)
    whole = muster(pair.hub, "audit", "explain", task[:10], "--json")
    assert re.search(r"\b[0-9a-f]{64}\b", whole.out)
    assert muster(pair.hub, "why", task[:10]).code == 0


@proves("cli.rebuild")
def test_rebuild_waits_for_the_daemon_to_be_down(pair, tmp_path):
    home = tmp_path / "home"
    pair.ok(home, "init", "--listen", "")
    pair.ok(home, "up", "--detach")
    assert muster(home, "rebuild").code == 6
    pair.ok(home, "down")
    assert pair.ok(home, "rebuild")["entries"] >= 3


@proves("cli.down")
def test_down_returns_when_the_daemon_is_gone_and_up_goes_on_where_it_was(pair, tmp_path):
    home = tmp_path / "home"
    pair.ok(home, "init", "--listen", "")
    pid = pair.ok(home, "up", "--detach")["pid"]
    incarnation = pair.ok(home, "status")["incarnation"]
    assert pair.ok(home, "down")["pid"] == pid
    assert not runs(pid)
    assert not (home / "run" / "pid").exists()
    assert pair.ok(home, "down")["was"] == "not running"
    pair.ok(home, "up", "--detach")
    assert pair.ok(home, "status")["incarnation"] == incarnation
    pair.ok(home, "down")


@proves("cli.up-says-why")
def test_an_up_that_cannot_begin_says_why_and_leaves_no_process(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init", "--listen", "").code == 0
    (home / "seed").chmod(0o644)
    for words in (("up",), ("up", "--detach")):
        said = muster(home, *words)
        assert said.code in (3, 8)
        assert "chmod 600" in said.err
        assert "Traceback" not in said.err
    assert not (home / "run" / "pid").exists()


@proves("cli.interrupt")
def test_ctrl_c_ends_a_daemon_in_the_foreground_in_order(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init", "--listen", "").code == 0
    reader, writer = os.pipe()
    daemon = subprocess.Popen(
        [sys.executable, "-m", "muster", "up"],
        env=environment(home, MUSTER_READY_FD=str(writer)),
        pass_fds=(writer,),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    daemon.send_signal(2)
    _, err = daemon.communicate(timeout=30)
    assert daemon.returncode == 0
    assert "Traceback" not in err
    assert not (home / "run" / "pid").exists()
