"""`make screenshots`: what a terminal shows, as pictures in docs/guide/screens/.

A fleet of real cores plays a run under one seed and one clock (tests/node/cores.py): names, ids and
times are the same each time, so a picture changes only where what people see has changed.

    python -m tools.screenshots            # writes docs/guide/screens/*.svg
"""

import asyncio
import contextlib
import html
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import msgspec
from tests.node.cores import WALL_MS, Cores, One, attempt_ended

from muster.agent import catalogue
from muster.cli import show
from muster.cli.picture import picture
from muster.cli.run_progress import RunProgress
from muster.cli.text import width_of
from muster.git.landing import Clash
from muster.limits import LEASE_MS
from muster.log import canon
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.attempt_body import AttemptStage
from muster.task.instruction import StartAttempt
from muster.verbs import agent
from muster.verbs.land import Landed, by_hand

FOLDER: Final = Path(__file__).parent.parent / "docs" / "guide" / "screens"
COLUMNS: Final = 110
_SPEC: Final = """\
muster: 1
name: fix-login
phases:
  plan: {agent: claude, do: Read the issue and say how to mend it, check: "true"}
  code: {after: plan, agent: claude, needs: {label: tests}, do: Mend the login, check: make test}
  docs: {after: plan, agent: codex, do: Say in the manual what changed, check: "true"}
  agree: {after: [code, docs], by: human, do: Is this what you want}
  tidy: {after: agree, agent: shell, do: make format, check: make lint}
"""
_PIECE: Final = re.compile(r"\x1b\[(\d+)m")
_CLASSES: Final = {"1": "b", "2": "d", "31": "r", "32": "g", "33": "y"}
_STYLE: Final = (
    "text{font:14px ui-monospace,Menlo,Consolas,monospace;fill:#d8dee9;white-space:pre}"
    ".b{font-weight:bold}.d{fill:#7b8494}.r{fill:#e06c75}.g{fill:#98c379}.y{fill:#e5c07b}"
)
_ROW_PX: Final = 19
_COLUMN_PX: Final = 8.43


class Story:
    """Three machines and a run of which one lost a machine midway."""

    def __init__(self, world: Cores) -> None:
        self.world, self.progress, self._heard = world, RunProgress(), 0
        self.hub = self.world["hub"]
        agents = {"claude": "2.1.4", "shell": ""}
        self._knows(self.hub, agents={"shell": ""}, labels=("always-on",))
        self._knows(self.world["studio"], agents=agents, labels=("tests",))
        self._knows(self.world["laptop"], agents={**agents, "codex": "0.61.0"}, labels=("tests",))
        for name in ("laptop", "studio"):
            self.world.link("hub", name)
        self.world.pass_ms(5_000)
        args = {"base": "", "repo": "", "spec": _SPEC, "values": {}}
        self.run = str(self.hub.order("run", "fix-login", args)["value"]["run"])
        follow = {"args": {"live": True, "run": self.run, "waits": True}, "verb": "watch"}
        self.hub.raw(canon.encode(follow), channel=99)
        self._pass(0)

    def _pass(self, ms: int) -> None:
        """So much time, and what whoever follows the run was told in it."""
        self.world.pass_ms(ms)
        told = self.hub.told[99]
        for each in told[self._heard :]:
            self.progress.hear(each["value"])
        self._heard = len(told)

    def _knows(self, machine: One, **facts: Any) -> None:
        machine.step(FactsChanged(machine.facts(**facts)))

    def _starts(self) -> Iterator[tuple[One, Any]]:
        """The attempts that began since the last look."""
        for machine in self.world.machines.values():
            began = [each for each in machine.effects if isinstance(each, StartAttempt)]
            machine.effects.clear()
            yield from ((machine, each) for each in began)

    def play(self) -> str:
        """Until the machine that had the phase `code` is gone, and another one checks its own work.

        The task of `code`.
        """
        self._pass(2_000)
        ((machine, plan),) = self._starts()
        self._pass(41_000)
        said = "the session cookie is read before it is set; move the check behind it"
        machine.step(attempt_ended(plan.assign.task, plan.assign.epoch, "done", summary=said))
        self._pass(4_000)
        began = {start.open.phase: (machine, start) for machine, start in self._starts()}
        machine, start = began["code"]
        self._pass(63_000)
        self.world.cut(machine.name)
        self.world.frozen.add(machine.name)
        keeper, docs = began["docs"]
        self._pass(LEASE_MS)
        keeper.step(attempt_ended(docs.assign.task, docs.assign.epoch, "done",
                                  summary="wrote a paragraph on sessions"))  # fmt: skip
        self._pass(25_000)
        for machine, each in self._starts():
            if each.open.phase == "code":
                machine.step(AttemptStage(each.assign.task, each.assign.epoch, "checking"))
        self._pass(7_000)
        return str(start.assign.task)

    def agents(self) -> list[str]:
        """`agents` looks at the programs of its own machine: here at none, for the hub has none."""

        async def own(**_: Any) -> Any:
            return self.hub.facts(agents={"shell": ""})

        answered = SimpleNamespace(silent=())
        effects = SimpleNamespace(agents=catalogue.load(None), facts=own, discovery=answered)
        daemon: Any = SimpleNamespace(core=self.hub.core, effects=effects, post=lambda _: None)
        call: Any = None
        rows = asyncio.run(agent.agents(daemon, call, agent.Agents()))
        return show.text("agents", msgspec.to_builtins(rows)).splitlines()

    def shown(self, verb: str, **args: Any) -> list[str]:
        return show.text(verb, self.hub.call(verb, args)["value"]).splitlines()


def _conflict(run: str) -> list[str]:
    """A landing that is refused, as the command answers it."""
    clash = Clash("src/login.py", ("3f1c9a2e77b0 Ask for a second factor (Bea)",),
                  ("code of fix-login (claude on laptop)",))  # fmt: skip
    landed = Landed(
        outcome="conflict", run=run, name="fix-login", repo="main", branch="main",
        where="git@example.com:shop.git", phases=["code", "docs"],
        files=[{"path": clash.path, "there": clash.there, "result": clash.result}],
        next=by_hand(f"fix-login-{run[:8]}", "main"),
    )  # fmt: skip
    return show.text("land", msgspec.to_builtins(landed)).splitlines()


@contextlib.contextmanager
def _terminal(world: Cores) -> Iterator[None]:
    """As at a terminal of so many columns, at the moment of the story, in universal time."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    with (
        mock.patch("time.time_ns", side_effect=lambda: (WALL_MS + world.ms) * 1_000_000),
        mock.patch("muster.cli.run_progress.boot_ms", side_effect=lambda: world.ms),
        mock.patch("muster.cli.text.obeys", return_value=True),
        mock.patch("muster.cli.table.room", return_value=COLUMNS),
        mock.patch("muster.cli.show.agent.room", return_value=COLUMNS),
        mock.patch("sys.stdout", mock.Mock(encoding="utf-8")),
    ):
        try:
            yield
        finally:
            os.environ.pop("TZ")
            os.environ.update({} if before is None else {"TZ": before})
            time.tzset()


def screens() -> dict[str, str]:
    """Every picture by the name of its file."""
    world = Cores("hub", "studio", "laptop")
    with _terminal(world):
        story = Story(world)
        task = story.play()
        found = {
            "watch": ("muster watch fix-login", picture(story.progress, COLUMNS, 24)),
            "machines": ("muster machines", story.shown("machines")),
            "agents": ("muster agents", story.agents()),
            "why": ("muster why fix-login/code", story.shown("why", task=task)),
            "land-conflict": ("muster land fix-login", _conflict(story.run)),
        }
    return {f"{name}.svg": svg(typed, lines) for name, (typed, lines) in found.items()}


def svg(typed: str, lines: list[str]) -> str:
    """Lines of a terminal as a picture; every line is text that can be selected and read aloud."""
    every = [f"\x1b[2m$\x1b[0m \x1b[1m{typed}\x1b[0m"]
    for line in lines:
        # A terminal goes on in the next row; only lines without colour are so long.
        every += (
            textwrap.wrap(line, COLUMNS)
            if width_of(line) > COLUMNS and "\x1b" not in line
            else [line]
        )
    columns = max(width_of(_PIECE.sub("", line)) for line in every)
    width, height = round(columns * _COLUMN_PX) + 32, len(every) * _ROW_PX + 28
    rows = "\n".join(
        f'<text x="16" y="{29 + at * _ROW_PX}" xml:space="preserve">{_spans(line)}</text>'
        for at, line in enumerate(every)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">\n'
        f"<title>{html.escape(typed)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#1f2430"/>\n{rows}\n</svg>\n'
    )


def _spans(line: str) -> str:
    """A line with its colours as classes."""
    pieces, shown, kind = _PIECE.split(line), "", ""
    for at, piece in enumerate(pieces):
        if at % 2:
            kind = _CLASSES.get(piece, "")
        elif piece:
            text = html.escape(piece, quote=False)
            shown += f'<tspan class="{kind}">{text}</tspan>' if kind else text
    return shown


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in screens().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"wrote {FOLDER / name}", file=sys.stderr)


if __name__ == "__main__":
    main()
