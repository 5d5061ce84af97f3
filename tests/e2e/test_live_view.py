"""What a person sees of a run at a real terminal, with real daemons, and how soon.

A terminal is a pty whose output goes through a small screen that knows what we write: lines, the
cursor up, and what wipes.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.world import ended
from tests.e2e.fleet import Fleet, until
from tests.promise import proves

pytestmark = pytest.mark.e2e

_TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


class Terminal:
    """`muster WORDS` at a terminal of its own."""

    def __init__(
        self, fleet: Fleet, on: str, *words: str, columns: int = 100, term: str = "xterm"
    ) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(
                sys.executable,
                [sys.executable, "-m", "muster", *words],
                {**fleet.environment(fleet[on]), "MUSTER_HOME": str(fleet[on].home.path),
                 "TERM": term, "COLUMNS": "", "LINES": ""},
            )  # fmt: skip
        self.resize(columns)
        self.lines, self.at, self.raw = [""], 0, ""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))

    def read(self, within_s: float) -> bool:
        """Whether something came; it is on the screen, then."""
        if not select.select([self.fd], [], [], within_s)[0]:
            return False
        try:
            raw = os.read(self.fd, 65_536).decode("utf-8", "replace")
        except OSError:
            return False
        self.raw += raw
        for found in _TOKEN.finditer(raw):
            self._put(found[0], int(found[1] or 1), found[2])
        return bool(raw)

    def _put(self, text: str, count: int, code: str | None) -> None:
        if code == "A":
            self.at -= count
            assert self.at >= 0, "it moved above what it had drawn"
        elif code == "J":
            del self.lines[self.at + 1 :]
        elif text == "\n":
            self.at += 1
            if self.at == len(self.lines):
                self.lines.append("")
        elif text == "\r":
            self._fresh = True
        elif code is None:
            self.lines[self.at] = (
                text if getattr(self, "_fresh", True) else self.lines[self.at] + text
            )
            self._fresh = False

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, shown: str, within_s: float = 60.0) -> str:
        """The line that says this, as soon as there is one."""
        end = time.perf_counter() + within_s
        while True:
            for line in self.lines:
                if re.search(shown, line):
                    return line
            if (
                not self.read(max(0.0, end - time.perf_counter()))
                and time.perf_counter() > end - 0.01
            ):
                raise AssertionError(f"{shown!r} never came:\n{self.text}\n{self.raw[-400:]!r}")

    def code(self) -> int:
        """Its exit code, when all it says was read."""
        while self.read(60.0):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(["hub", "studio", "laptop"]) as made:
        for name in ("studio", "laptop"):
            home = made[name].home
            text = Path(home.path, "config.toml").read_text()
            home.put("config.toml", text.replace(f'"on-{name}"', f'"on-{name}", "far"').encode())
        made.start()
        yield made


@pytest.fixture
def watch(fleet) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def begin(on: str, run: str, **more: object) -> Terminal:
        made.append(Terminal(fleet, on, "watch", run, **more))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def hand_in(fleet: Fleet, phases: str) -> str:
    args = {
        "spec": f"muster: 1\nname: live\nphases:\n{phases}",
        "values": {},
        "repo": "",
        "base": "",
    }
    return str(fleet.hub.order("run", "live", args, options={"again": True})["run"])


def tasks(fleet: Fleet, run: str) -> dict[str, dict]:
    return {each["phase"]: each for each in fleet.hub.ask("runs", {"run": run})["tasks"]}


WAITS = """\
  one: {agent: shell, needs: {label: far}, do: 'until [ -e "$E2E_NOTES-%s" ]; do sleep 0.05; done', check: "true"}
  two: {agent: shell, after: one, do: sleep 0.5, check: sleep 2}
"""


def gate(fleet: Fleet) -> tuple[str, Path]:
    """What the first phase waits for: its name, and the file."""
    name = str(time.monotonic_ns())
    return name, Path(f"{fleet.notes}-{name}")


@proves("cli.live-view", "cli.live-view-is-at-once")
def test_states_are_on_the_screen_within_0_3_s_of_their_entries_and_it_ends_with_the_run(
    fleet, watch
):
    name, go = gate(fleet)
    run = hand_in(fleet, WAITS % name)
    screen = watch("hub", run[:8])
    screen.until(r"one +running +(studio|laptop) +shell")
    screen.until(r"two +waiting +for one")
    seen_ms = []
    go.touch()
    for shown in (
        r"one +done",
        r"two +running",
        r"two +checking",
        r"LIVE +|live  .*done$|two +done",
    ):
        screen.until(shown)
        seen_ms.append(time.time_ns() // 1_000_000)
    assert screen.code() == 0
    found = tasks(fleet, run)
    late_ms = seen_ms[0] - found["one"]["changed_ms"], seen_ms[3] - found["two"]["changed_ms"]
    print("entry to screen, ms:", late_ms)
    assert max(late_ms) <= 300
    assert "\x1b[" in screen.raw


@proves("cli.live-view")
def test_a_killed_worker_is_a_takeover_with_its_reason_on_the_screen_of_another_machine(
    fleet, watch
):
    name, go = gate(fleet)
    run = hand_in(fleet, WAITS % name)
    screen = watch("hub", "live/one")
    line = screen.until(r"one +running")
    first = "studio" if "studio" in line else "laptop"
    fleet[first].kill()
    other = ({"studio", "laptop"} - {first}).pop()
    try:
        assert f"taken over from {first}" in screen.until(rf"one +running +{other}", 60)
        screen.until(r"attempt 2")
        go.touch()
        assert screen.code() == 0
    finally:
        fleet[first].start()
    until(fleet[first].linked, f"{first} is back")
    assert tasks(fleet, run)["one"]["losses"] == 1


@proves("cli.live-view")
def test_ctrl_c_leaves_the_run_and_says_how_to_come_back_and_a_failure_ends_with_exit_code_1(
    fleet, watch
):
    name, go = gate(fleet)
    failing = WAITS.replace("done'", "done; exit 3'") % name
    run = hand_in(fleet, failing)
    screen = watch("hub", run[:8], columns=40)
    screen.until(r"one +running")
    os.write(screen.fd, b"\x03")
    assert screen.code() == 130
    assert f"muster watch {run[:12]}" in screen.raw
    assert f"muster cancel {run[:12]}" in screen.raw
    again = watch("studio", run[:8], columns=80)
    again.until(r"one +running")
    again.resize(40)
    go.touch()
    assert again.code() == 1
    assert "skipped" in again.text, "what is left on the screen is the run as it ended"


@proves("cli.live-view")
def test_a_plain_terminal_and_a_pipe_get_a_line_for_each_change(fleet, watch):
    name, go = gate(fleet)
    run = hand_in(fleet, WAITS % name)
    screen = watch("hub", run[:8], term="dumb")
    screen.until(r"one: running on")
    argv = [sys.executable, "-m", "muster", "watch", run, "--json"]
    with ended(
        subprocess.Popen(argv, env=fleet.environment(fleet.hub), stdout=subprocess.PIPE, text=True)
    ) as reader:
        go.touch()
        said = reader.communicate(timeout=60)[0]
    assert reader.returncode == 0
    assert screen.code() == 0
    assert "\x1b" not in screen.raw
    assert re.search(r"two: done on \w+ after", screen.raw)
    told = [json.loads(line) for line in said.splitlines()]
    assert list(told[0]["phases"]) == ["one", "two"]
    assert ("two", "leased") in [(each.get("phase"), each.get("state")) for each in told]


@proves("cli.runs-go-on")
def test_the_list_of_runs_goes_on_with_what_happens(fleet):
    name, go = gate(fleet)
    run = hand_in(fleet, WAITS % name)
    screen = Terminal(fleet, "studio", "runs", "--follow", columns=120)
    try:
        assert "alice" in screen.until(rf"{run[:12]} +live +open +0 of 2")
        go.touch()
        screen.until(rf"{run[:12]} +live +open +1 of 2")
        screen.until(rf"{run[:12]} +live +done +2 of 2")
        os.write(screen.fd, b"\x03")
        assert screen.code() == 0
    finally:
        screen.close()


@proves("cli.rerun", "cli.await")
def test_a_failed_run_is_run_again_from_what_is_done_and_waited_for(fleet):
    fleet.hub.home.put_seed("operator.seed", fleet.operator_seed)
    name, go = gate(fleet)
    run = hand_in(
        fleet,
        "  one: {agent: shell, do: echo kept, check: 'true'}\n"
        f"  two: {{agent: shell, after: one, do: 'test -e \"$E2E_NOTES-{name}\"', check: 'true'}}\n",
    )

    def muster(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "muster", *words]
        env = fleet.environment(fleet.hub)
        return subprocess.run(
            argv, env=env, capture_output=True, text=True, timeout=90, check=False
        )

    assert muster("await", run[:8], "--timeout", "1m").returncode == 1
    go.touch()
    said = muster("rerun", run[:8], "--failed")
    assert said.returncode == 0, said
    assert "kept: one; runs: two" in said.stderr
    assert f"kept from run {run[:12]}" in said.stdout
    newest = fleet.hub.ask("runs", {"run": "live"})
    assert [each["phase"] for each in newest["tasks"] if each["run"] == newest["run"]] == ["two"]
    assert muster("await", newest["run"]).returncode == 0
    said = muster("why", f"{newest['run'][:8]}/one")
    assert f"kept it from run {run[:12]}" in said.stdout
    hold, _ = gate(fleet)
    goes_on = hand_in(fleet, WAITS % hold)
    said = muster("await", goes_on, "--timeout", "1s")
    assert said.returncode == 124, said
    fleet.hub.order("cancel", goes_on, {"what": goes_on})
