"""Attempts between real daemons, enclosed: what they see, reach and may ask, and what they do not."""

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from muster.errors import Refused
from muster.git import repository
from tests.e2e.agents import begin, settled, tasks
from tests.e2e.enclosing import enclose, journal
from tests.e2e.fleet import Fleet, until
from tests.git.repositories import sh, wait
from tests.promise import proves
from tests.sandboxes import why_not

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]

SPEC = """\
muster: 1
name: {name}
repo: main
phases:
  work:
    needs: {{machine: studio}}
    agent: shell
    retries: 0
    {keys}
    do: |
{do}
    {check}
"""


# A name of this machine that its own system resolves.
HOST = socket.gethostname().lower()


class Site(BaseHTTPRequestHandler):
    """A server of this machine, which says what it was asked for."""

    def do_GET(self) -> None:
        body = f"you asked for {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def site() -> Iterator[int]:
    server = ThreadingHTTPServer(("", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with site() as made:
        yield made


def add_ends(fleet: Fleet) -> None:
    """A repository whose file was committed before its line ends were named."""
    source = fleet.root / "ends"
    source.mkdir()
    sh(source, "init", "-q", "-b", "main")
    for name, text in (("old.txt", b"a\r\nb\r\n"), (".gitattributes", b"*.txt text\n")):
        (source / name).write_bytes(text)
        sh(source, "add", name)
        sh(source, "commit", "-q", "-m", name)
    fleet.ends = wait(repository.add(Path(fleet.hub.home.repos), "ends", str(source))).path


@pytest.fixture(scope="module")
def fleet(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    shown = tmp_path_factory.mktemp("shown")
    # Below a folder that the user of an attempt cannot enter, where the daemon is root.
    shown.chmod(0o755)
    (shown / "data.txt").write_text("what may be seen")
    with Fleet(["hub", "studio"]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        made.add_repository()
        add_ends(made)
        enclose(made["studio"], paths=(str(shown),), local=(f"{HOST}:{port}",))
        person = made.root / "person"
        (person / ".ssh").mkdir(parents=True)
        (person / ".ssh/id_ed25519").write_text("a key")
        made["studio"].env = {"HOME": str(person)}
        made.start()
        made.shown = shown
        yield made


def run(
    fleet: Fleet, name: str, do: str, *, keys: str = "", check: str = "true", repo: str = "main"
) -> dict[str, Any]:
    """The task of a run of one phase, when it has ended."""
    text = "\n".join(f"      {line}" for line in do.splitlines())
    more = f"check: {json.dumps(check)}"
    spec = SPEC.format(name=name, do=text, keys=keys, check=more)
    found = begin(fleet, spec, name, repo)
    settled(fleet, found)
    return tasks(fleet, found)["work"]


def output(fleet: Fleet, task: dict[str, Any]) -> str:
    assert task["state"] == "done", json.dumps(task)
    return str(fleet.hub.ask("result", {"task": task["task"]})["values"]["output"])


@proves("enclosure.by-default")
def test_an_attempt_that_says_nothing_sees_its_folder_and_nothing_of_whoever_runs_it(fleet):
    home = fleet["studio"].home.path
    do = f"""
cat readme.md
pwd
for each in {home}/seed {home}/config.toml {fleet.root}/person /etc/shadow {fleet.root}/hub; do
  test ! -e $each || echo "sees $each"
done
test "$HOME" = /home/agent && touch "$HOME/x" && echo "has a home"
echo "is $(id -u)"
ps ax 2>/dev/null | grep -c tests.e2e.machine || true
"""
    said = output(fleet, run(fleet, "sees", do)).splitlines()
    assert said[0] == "hello"
    assert said[1].startswith(str(home / "work"))
    assert said[2:4] == ["has a home", "is 1000"]
    assert not [each for each in said if each.startswith("sees ")]
    assert not list((home / "work").iterdir()), "home and folder are gone"


@proves("git.untouched-stays")
def test_what_an_attempt_left_alone_is_in_no_commit_of_its_whoever_it_belonged_to(fleet):
    do = "printf x > new.md"
    task = run(fleet, "ends", do, keys="deliver: [new.md]", check="test -f new.md", repo="ends")
    assert task["state"] == "done", json.dumps(task)
    made = fleet.hub.ask("result", {"task": task["task"]})["commit"]
    assert sh(fleet.ends, "show", "--format=", "--name-only", made).split() == ["new.md"]


@proves("enclosure.by-default")
def test_an_attempt_reaches_nothing_of_the_network_unless_its_phase_says_so(fleet, port):
    do = f"""
python3 - <<'END'
import socket
for place in (("127.0.0.1", {port}), ("192.0.2.1", 80)):
    try:
        socket.create_connection(place, 3)
        print("reached", place)
    except OSError as error:
        print("no")
END
"""
    assert output(fleet, run(fleet, "alone", do)).split() == ["no", "no"]


FETCH = """
python3 - <<'END'
import os, urllib.request
for url in ("http://{HOST}:{port}/a?token=hidden", "http://other.test:{port}/b"):
    try:
        print(urllib.request.urlopen(url, timeout=20).read().decode())
    except OSError as error:
        print("refused", error)
END
"""


@proves("enclosure.network-by-name")
def test_what_its_phase_names_is_reached_through_the_proxy_and_the_rest_is_refused(fleet, port):
    task = run(fleet, "fetch", FETCH.format(HOST=HOST, port=port), keys=f"network: [{HOST}:{port}]")
    said = output(fleet, task).splitlines()
    assert said[1].startswith("refused HTTP Error 403"), said
    assert said[0] == "you asked for /a?token=hidden", said
    told = journal(fleet, task, "agent.network")
    by_host = {each["host"]: each for each in told}
    assert by_host["other.test"]["allowed"] is False
    assert "hidden" not in json.dumps(told)


@proves("enclosure.by-default")
def test_the_check_is_enclosed_as_well(fleet):
    home = fleet["studio"].home.path
    check = (
        f'test ! -e {home}/seed && test ! -e {fleet.root}/person && test -z "$MUSTER_CAPABILITY"'
    )
    assert run(fleet, "checked", "true", check=check)["state"] == "done"


@proves("enclosure.paths-of-two")
def test_a_path_is_shown_where_phase_and_owner_name_it_and_never_written(fleet):
    shown = fleet.shown
    do = f"cat {shown}/data.txt; touch {shown}/x 2>/dev/null || echo ' and not written'"
    keys = f"paths: {{read: [{shown}]}}"
    assert output(fleet, run(fleet, "shown", do, keys=keys)).strip() == (
        "what may be seen and not written"
    )
    assert output(fleet, run(fleet, "hidden", f"ls {shown} 2>&1 | wc -l")).strip() == "1"


@proves("enclosure.paths-of-two")
def test_a_path_that_the_owner_does_not_show_is_refused_with_the_setting_that_would(fleet):
    spec = SPEC.format(
        name="refused", do="      ls /opt", keys="paths: {read: [/opt]}", check="check: 'true'"
    )
    found = begin(fleet, spec, "refused")
    until(lambda: "`paths` under [sandbox]" in why(fleet, found), lambda: why(fleet, found))
    # It waits for a machine that shows it.
    fleet.hub.order("cancel", found, {"what": found, "reason": "seen"})
    settled(fleet, found)


@proves("enclosure.own-socket")
def test_the_command_line_inside_may_do_what_the_capability_says_and_nothing_else(fleet):
    do = f"""
{sys.executable} -m muster remember build "the build needs an hour" 2>&1 && echo remembered
{sys.executable} -m muster machines >/dev/null 2>&1 || echo refused
env -u MUSTER_CAPABILITY {sys.executable} -m muster remember build "by nobody" 2>/dev/null || echo nobody
"""
    said = output(fleet, run(fleet, "speaks", do)).split("\n")
    assert [line for line in said if line in ("remembered", "refused", "nobody")] == [
        "remembered", "refused", "nobody",
    ]  # fmt: skip


@proves("enclosure.off-by-order")
def test_a_shell_may_be_ordered_without_a_sandbox_and_the_journal_says_so(fleet):
    task = run(fleet, "open", "id -u; echo $HOME", keys="sandbox: off")
    assert output(fleet, task).split() == [str(os.getuid()), str(fleet.root / "person")]
    (told,) = journal(fleet, task, "agent.sandbox")
    assert told["enclosed"] is False


@proves("enclosure.leaves-nothing")
def test_a_cancelled_attempt_leaves_no_process_no_socket_and_no_folder(fleet):
    before = set(os.listdir(Path(fleet["studio"].home.socket).parent))
    spec = SPEC.format(
        name="long",
        do="      (setsid sleep 1000 &) ; trap '' TERM; sleep 1000",
        keys="",
        check="check: 'true'",
    )
    found = begin(fleet, spec, "long")
    until(lambda: sleeping(fleet), "it sleeps")
    fleet.hub.order("cancel", found, {"what": found, "reason": "enough"})
    settled(fleet, found)
    until(lambda: not sleeping(fleet), "nothing of it is left", within_s=30)
    until(lambda: not list((fleet["studio"].home.path / "work").iterdir()), "no folder is left")
    assert set(os.listdir(Path(fleet["studio"].home.socket).parent)) == before


def sleeping(fleet: Fleet) -> list[int]:
    """The processes that this test's command sleeps in."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes() == b"sleep\0001000\0":
                found.append(int(folder.name))
    return found


@proves("enclosure.never-without")
def test_a_machine_that_cannot_enclose_is_given_nothing_and_begins_nothing(tmp_path):
    marker = tmp_path / "ran"
    with Fleet(["hub"]) as alone:
        alone.hub.home.put_seed("operator.seed", alone.operator_seed)
        alone.add_repository()
        bwrap = alone.root / "bwrap"
        bwrap.symlink_to("/usr/bin/bwrap")
        enclose(alone.hub, program=str(bwrap), writable=(str(tmp_path),))
        alone.start()
        keys = f"paths: {{write: [{tmp_path}]}}"
        spec = SPEC.replace("studio", "hub").format(
            name="never", do=f"      touch {marker}", keys=keys, check="check: 'true'"
        )
        # It could when the work was handed in, and cannot when it begins.
        bwrap.unlink()
        bwrap.write_text('#!/bin/sh\nshift 3; exec "$@"\n')
        bwrap.chmod(0o755)
        found = begin(alone, spec, "never")
        until(lambda: "sandbox" in why(alone, found), lambda: why(alone, found))
        assert not marker.exists()
        bwrap.unlink()
        alone.hub.stop()
        alone.hub.start()
        with pytest.raises(Refused, match=r"cannot enclose: .* is not there"):
            begin(alone, spec.replace("never", "again"), "again")
        assert not marker.exists()


def why(fleet: Fleet, run: str) -> str:
    """All that is known of why its task is where it is; "" before there is one."""
    task = tasks(fleet, run).get("work")
    return json.dumps(fleet.hub.ask("why", {"task": task["task"]})) if task else ""


@proves("enclosure.protected-results")
def test_what_programs_of_people_obey_comes_into_no_commit_by_git_or_by_its_spelling(fleet):
    carry = """
id=$(echo '{}' | git hash-object -w --stdin)
git update-index --add --cacheinfo 100644,$id,.mcp.json
git commit -qm smuggled
printf '[core]\\n\\tsparseCheckout = true\\n' >.git/config.worktree && echo "wrote it"
mkdir -p .git/info && echo /readme.md >.git/info/sparse-checkout
git ls-tree --name-only HEAD
"""
    task = run(fleet, "carries", carry)
    assert ".mcp.json" in output(fleet, task).split(), "it was in a commit of the agent's own"
    assert "wrote it" not in output(fleet, task)
    made = fleet.hub.ask("result", {"task": task["task"]})["commit"]
    kept = Path(fleet.hub.home.repos) / "main.git"
    assert sh(kept, "ls-tree", "--name-only", made).split() == ["readme.md"]
    task = run(fleet, "spells", "cp readme.md .MCP.json")
    assert task["state"] == "failed", task
    assert "`paths: {write: [.mcp.json]}`" in json.dumps(task), task
    freed = "paths: {write: [.mcp.json]}"
    assert run(fleet, "freed", "cp readme.md .mcp.json", keys=freed)["state"] == "done"
