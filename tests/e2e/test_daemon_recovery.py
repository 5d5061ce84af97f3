"""Real daemons that die, are cut off, run out of disk, and come back."""

import contextlib
import os
import resource
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.errors import Exhausted, MusterError
from tests.e2e import checks
from tests.e2e.fleet import Fleet, Machine, until
from tests.git.repositories import refs
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SPEC = """\
muster: 1
name: two
repo: main
phases:
  first:
    needs: {label: on-studio}
    agent: shell
    do: echo "$MUSTER_TASK $MUSTER_EPOCH" >> "$E2E_NOTES"; sleep 1.5; echo one > one.txt
    deliver: one.txt
  second:
    after: first
    agent: shell
    do: cat one.txt > two.txt
    deliver: two.txt
"""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A hub, and a studio that dials it."""
    with Fleet(["hub", "studio"]) as made:
        yield made


def say(sender: Machine, to: str, text: str, *, wait: bool = True) -> str:
    """A message; its id once it is stored (at the other end, too, with `wait`)."""
    args = {"text": [text], "to": to, "wait": wait}
    return str(sender.order("send", to, args)["message"])


def texts(machine: Machine) -> set[str]:
    return {m["text"] for m in machine.ask("inbox", {"all": True})}


def begin_run(fleet: Fleet) -> str:
    """A run whose first attempt has begun on the studio."""
    fleet.add_repository()
    fleet.start()
    args = {"base": "", "repo": "main", "spec": SPEC, "values": {}}
    run = str(fleet.hub.order("run", "two", args)["run"])
    until(fleet.notes.exists, "the first attempt runs")
    return run


def wait_done(fleet: Fleet, run: str, *, within_s: float = 60) -> list[dict[str, object]]:
    def settled() -> bool:
        return bool(fleet.hub.ask("runs", {"run": run})["state"] != "open")

    until(settled, lambda: str(fleet.hub.ask("runs", {"run": run})), within_s=within_s)
    view = fleet.hub.ask("runs", {"run": run})
    assert view["state"] == "done", [(t["state"], t["reason"]) for t in view["tasks"]]
    return list(view["tasks"])


@proves("node.run-survives-its-owner", "node.patient-push")
def test_a_run_goes_on_when_its_owner_is_killed_and_the_running_attempt_is_not_repeated(fleet):
    run = begin_run(fleet)
    fleet.hub.kill()
    time.sleep(0.5)
    fleet.hub.start()
    tasks = wait_done(fleet, run)
    assert [t["losses"] for t in tasks] == [0, 0]
    assert len(fleet.notes.read_text().splitlines()) == 1
    assert not fleet.orphans()


@proves("node.run-survives-its-worker")
def test_a_run_goes_on_when_its_worker_is_killed_and_nothing_of_the_attempt_lives_on(fleet):
    run = begin_run(fleet)
    fleet["studio"].kill()
    until(lambda: not fleet.orphans(), "the attempt ends with its daemon", within_s=10)
    fleet["studio"].start()
    # The worker says what died with it; nobody waits for the lease to run out.
    first, _ = wait_done(fleet, run, within_s=25)
    assert first["losses"] == 1
    epochs = [line.split()[1] for line in fleet.notes.read_text().splitlines()]
    assert len(set(epochs)) == 2
    repo = Path(fleet.hub.home.repos) / "main.git"
    moves = checks.git(repo, "reflog", "show", "--format=%H", f"muster/{run}/first").split()
    assert len(moves) == 1


@proves("node.third-member-serves")
def test_a_machine_that_was_away_gets_everything_from_a_third_member_when_the_writer_is_gone():
    dials = {"studio": ["hub"], "laptop": ["hub"]}
    with Fleet(["hub", "studio", "laptop"], dials=dials) as fleet:
        fleet.start()
        fleet["studio"].kill()
        for number in range(20):
            say(fleet["laptop"], "all", f"news {number}", wait=False)
        held = fleet["laptop"].ask("status")
        until(lambda: fleet["laptop"].ask("status")["exposed"] == 0, str(held))
        fleet["laptop"].kill()
        fleet["studio"].start()
        until(lambda: len(texts(fleet["studio"])) == 20, "all news came through the hub")
        assert texts(fleet["studio"]) == {f"news {n}" for n in range(20)}


@proves("node.one-side-reachable")
def test_two_machines_talk_both_ways_although_only_one_of_them_can_be_dialled():
    with Fleet(["hub", "studio"], deaf=["studio"]) as fleet:
        fleet.start()
        say(fleet.hub, "studio", "from the hub")
        say(fleet["studio"], "hub", "from the studio")
        assert texts(fleet["studio"]) == {"from the hub"}
        assert texts(fleet.hub) == {"from the studio"}


@proves("node.wrong-clock")
@pytest.mark.parametrize("off_ms", [400 * 86_400_000, -400 * 86_400_000])
def test_a_machine_with_a_clock_a_year_off_is_linked_and_sets_nobody_elses(fleet, off_ms):
    fleet["studio"].env["MUSTER_TEST_CLOCK_MS"] = str(off_ms)
    fleet.start()
    say(fleet.hub, "studio", "what time is it")
    until(lambda: texts(fleet["studio"]), "it came")
    log = checks.Log(fleet.hub)
    try:
        found = log.rows(
            "select json_extract(cast(header as text), '$.t[0]') from entry join stream on "
            "stream.id = entry.id >> 40 where stream.name like ?",
            fleet.hub.id + "%",
        )
        stamps = [int(row[0]) for row in found]
    finally:
        log.close()
    ahead_ms = max(stamps) - time.time_ns() // 1_000_000
    assert ahead_ms <= 11 * 60_000
    skew = next(m["skew_ms"] for m in fleet.hub.ask("machines") if m["name"] == "studio")
    assert abs(skew - off_ms) < 60_000


@contextlib.contextmanager
def full_disk(machine: Machine) -> Iterator[None]:
    """No file of the daemon grows any more, which is how a full disk looks from inside."""
    assert machine.process is not None
    pid, unlimited = machine.process.pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    size = os.path.getsize(machine.home.database + "-wal")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


@proves("node.disk-full")
def test_a_daemon_whose_disk_is_full_answers_writes_nothing_and_goes_on_by_itself(fleet):
    fleet.start()
    studio = fleet["studio"]
    told = [say(studio, "hub", "x" * 20_000 + str(n), wait=False) for n in range(5)]
    with full_disk(studio):
        with pytest.raises(Exhausted, match="full"):
            while True:
                told.append(say(studio, "hub", "y" * 20_000, wait=False))
        assert "standing still" in studio.log()
        with pytest.raises(Exhausted, match="full") as refused:
            say(studio, "hub", "z")
        assert refused.value.exit_code == 9
        with studio.client(timeout_s=1) as client:
            status = client.call("status", {})
        assert "stands still" in status["incidents"][0]["title"]
        assert status["incidents"][0]["severity"] == "critical"
        assert {m["message"] for m in studio.ask("sent")} >= set(told)
        # A peer that talks, and goes, waits like everything else.
        say(fleet.hub, "studio", "meanwhile", wait=False)
        time.sleep(1.5)
        assert "meanwhile" not in texts(studio)
        assert studio.alive
    until(lambda: "going on" in studio.log(), "it goes on by itself")
    until(lambda: "meanwhile" in texts(studio), "what waited came")
    assert {m["message"] for m in studio.ask("sent")} >= set(told)
    again = say(studio, "hub", "after")
    assert again in {m["message"] for m in fleet.hub.ask("inbox", {"all": True})}
    said = until(
        lambda: [i for i in studio.ask("status")["incidents"] if i["key"] == "disk-full"],
        "a person is told",
    )
    assert "was full for" in said[0]["title"]
    assert "mistake" not in studio.log()
    assert studio.stop() == 0
    studio.start()
    assert {m["message"] for m in studio.ask("sent")} >= {*told, again}


@proves("node.disk-full")
def test_a_daemon_that_is_stopped_on_a_full_disk_ends_well_and_has_what_it_acknowledged(fleet):
    fleet.start()
    studio = fleet["studio"]
    told = {say(studio, "hub", "x" * 20_000 + str(n), wait=False) for n in range(5)}
    with full_disk(studio):
        with pytest.raises(Exhausted, match="full"):
            while True:
                told.add(say(studio, "hub", "y" * 20_000, wait=False))
        assert studio.stop() == 0
    studio.start()
    assert told <= {m["message"] for m in studio.ask("sent")}


@proves("node.torn-log")
def test_a_torn_write_ahead_log_loses_nothing_that_another_machine_holds(fleet):
    fleet.start()
    studio = fleet["studio"]
    sent = {say(studio, "hub", f"held {n}") for n in range(10)}
    studio.kill()
    wal = Path(studio.home.database + "-wal")
    size = wal.stat().st_size
    with wal.open("r+b") as file:
        file.seek(size * 2 // 3)
        file.write(b"\xa5" * 64)
        file.truncate(size * 5 // 6)
    studio.start()
    until(lambda: "hub" in studio.linked(), "the link is back")
    again = say(studio, "hub", "after the tear")
    on_hub = {m["message"] for m in fleet.hub.ask("inbox", {"all": True})}
    assert on_hub == sent | {again}
    until(lambda: not checks.converged(fleet), lambda: checks.converged(fleet))
    log = checks.Log(studio)
    try:
        held = {r[0].hex() for r in log.rows("select id from message")}
    finally:
        log.close()
    assert sent <= held, "what the hub holds of us came back"
    checks.check_logs(fleet)


@proves("node.second-daemon")
def test_a_second_daemon_in_the_same_home_says_so_and_changes_nothing(fleet):
    fleet.start()
    first = fleet.hub.process
    pid = Path(fleet.hub.home.pid_file).read_text()
    reader = fleet.hub.begin()
    os.close(reader)
    assert fleet.hub.wait(20) == 6
    fleet.hub.process = first
    assert fleet.hub.ask("status")["name"] == "hub"
    assert Path(fleet.hub.home.pid_file).read_text() == pid == f"{first.pid}\n"
    database = sqlite3.connect(f"file:{fleet.hub.home.database}?mode=ro", uri=True)
    assert database.execute("pragma quick_check").fetchone() == ("ok",)
    database.close()


@proves("node.begins-anew")
def test_a_step_that_no_guard_saves_costs_a_moment_and_no_daemon(fleet):
    hub, studio = fleet.hub, fleet["studio"]
    hub.start(MUSTER_TEST_STUMBLES="odd words", MUSTER_TEST_STUMBLES_TIMES="2")
    studio.start()
    until(lambda: "studio" in hub.linked(), "a link")
    say(hub, "studio", "before")
    pid = hub.process.pid
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017 - the link is cut: whoever asked asks again
            say(hub, "studio", "odd words", wait=False)
        until(lambda: _answers(hub), "it answers again")
    assert hub.alive
    assert hub.process.pid == pid, "the same process goes on"
    assert hub.log().count("beginning anew") == 2
    until(lambda: "studio" in hub.linked(), "a new link")
    say(hub, "studio", "odd words")
    assert texts(studio) == {"before", "odd words"}
    assert hub.stop() == 0


def _answers(machine: Machine) -> bool:
    try:
        return bool(machine.ask("status"))
    except (OSError, AssertionError, MusterError):
        return False


@proves("git.lost-branches-are-said", "git.lost-branches-come-back")
def test_a_hub_from_a_backup_gets_the_branches_back_that_it_reported_or_says_that_they_are_gone(
    fleet,
):
    repo = fleet.add_repository()
    backup = fleet.root / "backup"
    shutil.copytree(fleet.hub.home.path, backup, symlinks=True)
    fleet.start()
    there = SPEC.replace("after: first", "after: first\n    needs: {label: on-studio}")
    args = {"base": "", "repo": "main", "spec": there, "values": {}}
    run = str(fleet.hub.order("run", "two", args)["run"])
    tasks = wait_done(fleet, run)
    fleet.hub.kill()

    def restored() -> None:
        shutil.rmtree(fleet.hub.home.path)
        shutil.copytree(backup, fleet.hub.home.path, symlinks=True)
        fleet.hub.start()

    restored()
    heads = {f"refs/heads/muster/{run}/{task['phase']}": task["commit"] for task in tasks}
    until(lambda: heads.items() <= refs(repo).items(), lambda: str(refs(repo)), within_s=30)
    # The same, and the worker has lost its cache as well.
    fleet.hub.kill()
    fleet["studio"].kill()
    shutil.rmtree(fleet["studio"].home.path / "repos-cache")
    fleet["studio"].start()
    restored()

    def told() -> list[str]:
        return [i["title"] for i in fleet.hub.ask("incidents") if i["open"]]

    until(
        lambda: len([t for t in told() if "is gone from repository main" in t]) == 2,
        lambda: str(told()), within_s=60,
    )  # fmt: skip
    assert not any(name.startswith("refs/heads/muster") for name in refs(repo))


@proves("node.clock-jumps-settle-nothing")
@pytest.mark.parametrize("name", ["hub", "studio"])
def test_a_run_that_is_live_outlives_a_clock_that_jumps_by_a_year_and_back(fleet, tmp_path, name):
    year_ms = 366 * 24 * 3_600_000
    word = tmp_path / "off"
    word.write_text("0")
    fleet[name].env["MUSTER_TEST_CLOCK_FILE"] = str(word)
    run = begin_run(fleet)
    try:
        for off_ms in (year_ms, -year_ms):
            word.write_text(str(off_ms))
            time.sleep(1.5)
        assert fleet[name].ask("status")["name"] == name
    finally:
        word.write_text("0")
    until(lambda: state_of(fleet, run) != "open", "the run ends", within_s=60)
    assert state_of(fleet, run) == "done"
    keys = {i["key"] for i in fleet[name].ask("incidents")}
    assert "clock" in keys
    again = say(fleet["studio"], "hub", "orders are taken as before")
    assert again in {m["message"] for m in fleet.hub.ask("inbox", {"all": True})}


def state_of(fleet: Fleet, run: str) -> str:
    return next(str(r["state"]) for r in fleet.hub.ask("runs") if r["run"] == run)
