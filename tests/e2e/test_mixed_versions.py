"""Machines of different versions are one fleet: ours beside d2fe6d8, which older homes still run.

The older version is fetched from git, as it was. A clone that does not have it (a shallow one)
cannot tell; the tests say so and are skipped.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from muster import __version__
from muster.cli import call
from muster.errors import MusterError
from muster.store.blobs import Blobs
from tests.cli.world import muster
from tests.e2e.fleet import ROOT, Fleet, Machine, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

OLDER = "d2fe6d8"
SPEC = """\
muster: 1
name: mixed
repo: main
phases:
  make:
    needs: {label: on-studio}
    agent: shell
    do: |
      printf made > made.txt
      printf said
    deliver: [made.txt]
    check: test -s made.txt
  use:
    after: [make]
    needs: {label: on-studio}
    agent: shell
    do: printf "%s by %s" "$MUSTER_MAKE_OUTPUT" "$(cat made.txt)" > used.txt
    deliver: [used.txt]
    check: grep "said by made" used.txt
"""
LONG = """\
muster: 1
name: long
phases:
  say:
    needs: {{label: on-{say}}}
    agent: shell
    do: head -c 100000 /dev/zero | tr '\\0' y
    check: "true"
  count:
    after: [say]
    needs: {{label: on-{count}}}
    agent: shell
    do: printf %s "$MUSTER_SAY_OUTPUT" | wc -c
    check: "true"
"""
LASTING = """\
muster: 1
name: lasting
phases:
  wait:
    needs: {label: on-studio}
    agent: shell
    do: sleep 600
    check: "true"
"""
DELIVERS = """\
muster: 1
name: deliver
phases:
  make:
    needs: {{label: on-{maker}}}
    agent: shell
    do: head -c 3000000 /dev/zero > big.bin
    deliver: [big.bin]
    check: test -s big.bin
"""
SAYS = """\
muster: 1
name: says
phases:
  say:
    needs: {{label: on-{owner}}}
    agent: shell
    do: echo one; sleep 2; echo and more
    check: "true"
"""
ASKED = """\
muster: 1
name: asked
phases:
  first:
    needs: {label: on-studio}
    agent: shell
    do: printf 1
    check: "true"
  agree:
    after: [first]
    by: human
    do: go on?
  last:
    after: [agree]
    needs: {label: on-studio}
    agent: shell
    do: test "$MUSTER_FIRST_OUTPUT" = 1
    check: "true"
"""


def git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A checkout of the older version."""
    if git("cat-file", "-e", f"{OLDER}^{{commit}}").returncode:
        pytest.skip(f"{OLDER} is not in this clone: fetch the whole history to test with it")
    place: Path = tmp_path_factory.mktemp("older") / "muster"
    made = git("worktree", "add", "--detach", str(place), OLDER)
    assert made.returncode == 0, made.stderr
    yield place
    git("worktree", "remove", "--force", str(place))


def make_older(machine: Machine, code: Path) -> None:
    """Let a machine run the older version, with the settings as it wrote them."""
    machine.code = code
    config = Path(machine.home.path / "config.toml")
    lines = config.read_text().replace("channel.http.", "").splitlines(keepends=True)
    config.write_text("".join(each for each in lines if not each.startswith("address")))


@pytest.fixture(scope="module", params=["hub", "studio"])
def fleet(request, older):
    """A hub and a studio; the one that is named is older."""
    with Fleet() as made:
        make_older(made[request.param], older)
        made.add_repository()
        yield made.start()


def is_older(machine: Machine) -> bool:
    return machine.code != ROOT


def begin(fleet: Fleet, name: str, spec: str, repo: str = "") -> str:
    args = {"base": "", "repo": repo, "spec": spec, "values": {}}
    return str(fleet.hub.order("run", name, args)["run"])


def tasks(machine: Machine, run: str) -> dict[str, dict]:
    return {str(t["phase"]): t for t in machine.ask("tasks", {"run": run, "all": True})}


def settled(machine: Machine, run: str) -> str:
    def over() -> str:
        found = [each for each in machine.ask("runs") if each["run"] == run]
        return str(found[0]["state"]) if found and found[0]["state"] != "open" else ""

    return str(until(over, lambda: str(machine.ask("runs", {"run": run})), within_s=60))


def result(machine: Machine, run: str, phase: str) -> str:
    task = tasks(machine, run)[phase]["task"]
    return str(machine.ask("result", {"task": task})["values"]["output"])


@proves("node.versions-mix")
def test_the_older_one_runs_the_older_program(fleet):
    told = {m["name"]: m["facts"]["muster"] for m in fleet.hub.ask("machines")}
    for name, machine in fleet.machines.items():
        assert (told[name] == "0.1.0") == is_older(machine)
        assert machine.process is not None
        folder = Path(f"/proc/{machine.process.pid}/cwd").resolve()
        assert (folder == ROOT) != is_older(machine)


@proves("node.versions-mix")
def test_each_knows_what_the_other_says_of_itself(fleet):
    for machine in fleet.machines.values():
        until(
            lambda m=machine: all(
                "shell" in (f["facts"] or {}).get("agents", {}) for f in known(m)
            ),
            lambda m=machine: str(known(m)),
        )


@proves("node.versions-mix", "node.reach-is-told")
def test_each_is_told_where_the_other_is_reached_in_the_words_that_it_knows(fleet):
    for machine in fleet.machines.values():
        (other,) = [each for each in fleet.machines.values() if each is not machine]
        address = f"127.0.0.1:{other.port}"

        def shown(machine=machine, other=other) -> dict:
            return next(row for row in known(machine) if row["name"] == other.name)

        until(lambda: shown()["facts"]["address"] == address, lambda: str(shown()))  # noqa: B023
        if not is_older(machine):
            ways = {(way["channel"], way["address"]) for way in shown()["ways"]}
            assert ("http", address) in ways
            assert not shown()["facts"]["reach"], "the older one tells no more than it knows"


def known(machine: Machine) -> list[dict]:
    return list(machine.ask("machines"))


@proves("node.versions-mix")
@pytest.mark.parametrize(("sender", "to"), [("hub", "studio"), ("studio", "hub")])
def test_messages_are_stored_both_ways(fleet, sender, to):
    fleet[sender].order("send", to, {"text": ["hello"], "to": to})
    until(lambda: held(fleet[sender]) == {"stored"}, lambda: str(fleet[sender].ask("sent")))
    (message,) = fleet[to].ask("inbox")
    assert message["text"] == "hello"
    fleet[to].order("ack", message["message"], {"message": message["message"]})
    until(lambda: held(fleet[sender]) == {"acted"}, lambda: str(fleet[sender].ask("sent")))


def held(machine: Machine) -> set[str]:
    return {str(to["state"]) for to in machine.ask("sent")[0]["to"]}


@proves("node.versions-mix")
def test_a_run_in_a_repository_is_done_by_the_other_and_hands_values_on(fleet):
    run = begin(fleet, "mixed", SPEC, "main")
    for machine in fleet.machines.values():
        assert settled(machine, run) == "done", machine.ask("runs", {"run": run})
        found = tasks(machine, run)["use"]
        assert found["machine"] == "studio"
        why = machine.ask("why", {"task": found["task"]})["decisions"]
        assert [c["machine"] for c in why[-1]["candidates"] if c["fits"]] == ["studio"]


@proves("node.old-specs-end")
def test_a_reference_in_shell_source_is_refused_or_fails_by_the_newer_and_says_what_to_write(fleet):
    spec = SPEC.replace("$MUSTER_MAKE_OUTPUT", "${make.output}")
    if not is_older(fleet.hub):
        with pytest.raises(MusterError, match="MUSTER_MAKE_OUTPUT"):
            begin(fleet, "mixed", spec, "main")
        return
    run = begin(fleet, "mixed", spec, "main")
    for machine in fleet.machines.values():
        assert settled(machine, run) == "failed"
        assert 'write "$MUSTER_MAKE_OUTPUT"' in tasks(machine, run)["use"]["reason"]


@proves("node.versions-mix")
def test_a_run_that_is_cancelled_ends_on_the_other(fleet):
    run = begin(fleet, "lasting", LASTING)
    task = until(lambda: tasks(fleet.hub, run).get("wait", {}).get("task"), "it is open")
    until(lambda: tasks(fleet.hub, run)["wait"]["state"] == "leased", "it is given")
    until(lambda: running(fleet["studio"], task), "it runs")
    fleet.hub.order("cancel", run, {"what": run})
    for machine in fleet.machines.values():
        assert settled(machine, run) == "cancelled"
    until(lambda: not running(fleet["studio"], task), "its processes are gone")


def running(machine: Machine, task: str) -> bool:
    return any("sleep 600" in line for line in machine.fleet.processes().values()) and bool(task)


@proves("node.versions-mix")
def test_a_long_value_of_the_studio_reaches_the_hub_as_the_older_one_knows_it(fleet):
    run = begin(fleet, "long", LONG.format(say="studio", count="hub"))
    for machine in fleet.machines.values():
        assert settled(machine, run) == "done", machine.ask("runs", {"run": run})
        assert result(machine, run, "say").startswith("[")
        assert 4_000 < int(result(machine, run, "count")) < 17_000, "the end, which says so"


@proves("node.versions-mix")
def test_no_long_value_reaches_an_older_machine_cut_where_it_was_promised_whole(fleet):
    run = begin(fleet, "long", LONG.format(say="hub", count="studio"))
    if is_older(fleet.hub):
        # It promised its own cut, and the newer one takes that.
        assert settled(fleet.hub, run) == "done", fleet.hub.ask("runs", {"run": run})
        assert 4_000 < int(result(fleet.hub, run, "count")) < 17_000
        return
    until(lambda: "count" in tasks(fleet.hub, run), "the second phase is open")
    task = tasks(fleet.hub, run)["count"]["task"]
    for machine in fleet.machines.values():
        until(lambda m=machine: "count" in tasks(m, run), "everybody sees the task")
    waits = fleet.hub.ask("why", {"task": task})
    assert "cannot take values this large" in json.dumps(waits), waits
    fleet.hub.order("cancel", run, {"what": run})
    assert settled(fleet["studio"], run) == "cancelled"


BETWEEN = (("hub", "studio"), ("studio", "hub"))


@proves("node.versions-mix")
@pytest.mark.parametrize(("maker", "reader"), BETWEEN)
def test_a_deliverable_without_a_repository_is_brought_from_the_other(fleet, maker, reader):
    run = begin(fleet, "deliver", DELIVERS.format(maker=maker))
    for machine in fleet.machines.values():
        assert settled(machine, run) == "done", machine.ask("runs", {"run": run})
    task = tasks(fleet[reader], run)["make"]["task"]
    answer = fleet[reader].ask("blob.bring", {"task": task, "path": "big.bin"})
    assert len(Blobs(Path(fleet[reader].home.blobs)).get(answer["sha256"])) == 3_000_000


@proves("node.versions-mix")
@pytest.mark.parametrize(("reader", "owner"), BETWEEN)
def test_a_run_and_a_journal_of_the_other_are_followed(fleet, reader, owner):
    args = {"base": "", "repo": "", "spec": SAYS.format(owner=owner), "values": {}}
    run = str(fleet[owner].order("run", "says", args)["run"])
    task = until(lambda: tasks(fleet[owner], run).get("say", {}).get("task"), "it is open")
    until(lambda: fleet[owner].ask("journal.where", {"task": task})["machines"], "it has begun")
    told = follow(fleet, reader, owner, "journal", task, {"task": task, "follow": True})
    assert "and more" in json.dumps(told)
    assert told[-1]["end"] is True
    told = follow(fleet, reader, owner, "watch", "*", {"run": run, "waits": True})
    assert told[-1]["settled"] == "done"
    assert [(each["phase"], each["state"]) for each in told[:-1]][-1] == ("say", "done")


def follow(fleet: Fleet, reader: str, owner: str, verb: str, object: str, args: dict) -> list[dict]:
    """What a command on one machine is told by the other."""
    signed = fleet.sign(verb, object, fleet[owner], args)
    more = {"on": fleet[owner].identity.machine, "statement": signed}
    return list(call.stream(fleet[reader].home.socket, verb, args, within_s=60, **more))


@proves("node.versions-mix")
def test_a_revoked_machine_is_out_for_both(fleet):
    fleet.hub.order("revoke", "studio", {"name": "studio"})
    until(lambda: "studio" not in fleet.hub.linked(), "its link is cut")
    for machine in fleet.machines.values():
        until(
            lambda m=machine: (
                [x["state"] for x in known(m) if x["name"] == "studio"] == ["revoked"]
            ),
            lambda m=machine: f"{m.name}: {known(m)}",
        )


@pytest.fixture(scope="module")
def taken_over(older):
    """A fleet that lived with the older version and goes on with ours; what was in it."""
    with Fleet(["hub", "studio", "laptop"]) as made:
        hub, studio = made.hub, made["studio"]
        for machine in made.machines.values():
            make_older(machine, older)
        made.start()
        hub.order("thread", "team", {"name": "team", "add": ["studio"]})
        hub.order("send", "thread:team", {"text": ["to the team"], "to": "thread:team"})
        hub.order("send", "studio", {"text": ["to the studio"], "to": "studio"})
        until(lambda: len(studio.ask("inbox")) == 2, lambda: str(studio.ask("inbox")))
        done = begin(made, "long", LONG.format(say="studio", count="laptop"))
        assert settled(hub, done) == "done"
        said = result(hub, done, "say")
        hub.order("revoke", "laptop", {"name": "laptop"})
        asked = begin(made, "asked", ASKED)
        until(lambda: tasks(hub, asked).get("agree", {}).get("state") == "waiting", "it asks")
        for machine in made.machines.values():
            machine.stop()
            machine.code = ROOT
        for machine in (hub, studio):
            machine.start()
        until(lambda: studio.linked() == {"hub"}, "they are linked")
        yield made, {"done": done, "said": said, "asked": asked}


@proves("store.older-home")
def test_what_is_in_an_older_home_is_shown(taken_over):
    fleet, was = taken_over
    for machine in (fleet.hub, fleet["studio"]):
        assert settled(machine, was["done"]) == "done"
        assert result(machine, was["done"], "say") == was["said"]
        assert [x["state"] for x in known(machine) if x["name"] == "laptop"] == ["revoked"]
        # It asks; how grave that is, was said by the older version.
        assert {i["severity"] for i in machine.ask("incidents")} <= {"notice", "warning"}
        why = machine.ask("why", {"task": tasks(machine, was["done"])["say"]["task"]})
        assert why["decisions"][0]["machine"] == "studio"
    texts = {each["text"] for each in fleet["studio"].ask("inbox")}
    assert texts == {"to the team", "to the studio"}
    until(
        lambda: (
            {m["facts"]["muster"] for m in known(fleet.hub) if m["state"] != "revoked"}
            == {__version__}
        ),
        "both say that they are newer",
    )


@proves("store.older-home")
def test_an_older_home_goes_on(taken_over):
    fleet, was = taken_over
    task = tasks(fleet.hub, was["asked"])["agree"]["task"]
    fleet.hub.order("decide", task, {"task": task, "answer": "yes"})
    assert settled(fleet.hub, was["asked"]) == "done", tasks(fleet.hub, was["asked"])["last"][
        "reason"
    ]
    studio = fleet["studio"]
    studio.order("send", "thread:team", {"text": ["and back"], "to": "thread:team"})
    until(lambda: "and back" in {m["text"] for m in fleet.hub.ask("inbox")}, "it arrives")
    run = begin(fleet, "long", LONG.format(say="hub", count="studio"))
    assert settled(fleet.hub, run) == "done"
    assert result(fleet.hub, run, "count").strip() == "100000", "whole, now that both are new"


@proves("store.older-home")
def test_the_log_of_an_older_home_holds_and_an_export_of_it_proves_itself(taken_over, tmp_path):
    fleet, _ = taken_over
    for machine in (fleet.hub, fleet["studio"]):
        home, folder = machine.home.path, tmp_path / machine.name
        assert muster(home, "audit", "verify", "--json").value["wrong"] == []
        assert muster(home, "audit", "export", str(folder)).code == 0
        script = ROOT / "verify" / "muster_verify.py"
        done = subprocess.run(
            [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "entries hold" in done.stdout
