"""Three machines for a night, a phone and a web server, with the agents that get into trouble.

The hub keeps the repository, a bridge to Telegram's Bot API and a pager; studio works; the laptop is
the one that keeps the schedules, and sleeps. The chat service and the web server are ours, on
loopback; all else is what `muster up` runs.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from muster.channel import FIRST, http
from muster.node.host.chat_config import ChatConfig
from muster.node.host.config import Config, config_text
from muster.node.host.notify_config import NotifyConfig
from muster.node.host.notify_store import NotifyStore
from muster.node.host.sandbox_config import SandboxConfig
from muster.node.host.secret_store import SecretStore
from tests.cli.test_notify import Hook
from tests.e2e import agents
from tests.e2e.fleet import ROOT, Fleet, Machine, until
from tests.e2e.night import clock
from tests.e2e.test_chat import Beside

HERE: Final = Path(__file__).parent.parent
NAMES: Final = ("hub", "studio", "laptop")
# Who sits beside the phone.
PERSON: Final = "alice"
# A busy computer must not lose a lease.
LEASE_S: Final = 12
# The hub, which has the repository, is given the first task of a run, and then is full; the laptop
# keeps schedules, and is given nothing.
SLOTS: Final = {"hub": 1, "studio": 2, "laptop": 0}
# What an agent that says the same again and again is given until it is told so: a quarter of the
# least is how often it is looked at.
HEALTH: Final = {"stall": 60, "silent": 6, "unseen": 6, "repeats": 5}
DISK_BYTES: Final = 4 << 30


def obstacle() -> str:
    """Why no disk can be full here; "" where one can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a full disk needs root on Linux"
    if shutil.which("unshare") is None:
        return "a full disk needs unshare (apt: util-linux)"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "a full disk needs a mount namespace (unshare)"


class World:
    """See the top of this file."""

    def __init__(self, *, disk: bool) -> None:
        Hook.got.clear()
        self.web = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        threading.Thread(target=self.web.serve_forever, daemon=True).start()
        self.phone = Beside()
        self.phone.do(self.phone.desk.open())
        self.marks = Path(tempfile.mkdtemp(prefix="muster-night-"))
        self.clocks = clock.Clocks(self.marks / "clocks")
        dials = {"studio": ["hub"], "laptop": ["hub", "studio"]}
        self.fleet = Fleet(NAMES, dials=dials, issued_ms=self.clocks.now_ms)
        self.disk = self.fleet["studio"].home.path if disk else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.fleet.close(keep=True)
        finally:
            if self.disk is not None and self.disk.is_mount():
                subprocess.run(["umount", str(self.disk)], check=False)
            shutil.rmtree(self.fleet.root, ignore_errors=True)
            shutil.rmtree(self.marks, ignore_errors=True)
            self.phone.do(self.phone.desk.close())
            self.phone.close()
            self.web.shutdown()
            self.web.server_close()

    def begin(self) -> None:
        """The evening: everybody is up, and the phone's account is linked."""
        fleet, hub = self.fleet, self.fleet.hub
        for machine in fleet.machines.values():
            self._settle(machine)
        hub.home.put_seed("operator.seed", fleet.operator_seed)
        SecretStore(hub.home.path).put("BOT", self.phone.desk.token, 0, "file")
        where = f"json://127.0.0.1:{self.web.server_address[1]}/told"
        NotifyStore(hub.home.path).add("hook", where, "push", in_keychain=False)
        fleet.add_repository()
        if self.disk is not None:
            self._mount(self.disk)
        fleet.start()
        for name in ("hub", "studio"):
            until(
                lambda n=name: {"stuck", "planner"} <= agents.agents_of(fleet, n), f"{name} is up"
            )
        desk = self.phone.desk
        until(lambda: "getUpdates" in desk.asked, "the bridge reads", within_s=60)
        code = self.muster("chat", "link", "telegram", "--json")["code"]
        self.phone.do(desk.say(PERSON, code, private=True))
        until(lambda: any("is linked by" in each.text for each in self.posts()), "it is linked")
        account = f"chat:telegram:{desk.account(PERSON)}"
        self.muster("grant", account, "approve", "--object", "class:other", "--json")

    def muster(self, *words: str) -> Any:
        """What a command on the hub answers, as the operator types it."""
        said = agents.muster(self.fleet, self.fleet.hub, *words)
        assert said.code == 0, f"muster {' '.join(words)}: {said.err}"
        return said.value if "--json" in words else said.out

    def posts(self) -> Any:
        return self.phone.do(self.phone.desk.seen())

    def told(self) -> list[str]:
        """What the web server was told."""
        return [raw.decode() for path, raw in list(Hook.got) if path == "/told"]

    def fill(self) -> None:
        """Nothing is left of studio's disk."""
        found = os.statvfs(str(self.disk))
        self._size((found.f_blocks - found.f_bfree) * found.f_frsize)

    def empty(self) -> None:
        """Somebody else's files are gone from studio's disk."""
        self._size(DISK_BYTES)

    def _mount(self, home: Path) -> None:
        aside = home.with_name("aside")
        home.rename(aside)
        home.mkdir(mode=0o700)
        how = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "none", str(home)]
        subprocess.run(how, check=True)
        shutil.copytree(aside, home, dirs_exist_ok=True)
        shutil.rmtree(aside)

    def _size(self, size: int) -> None:
        options = f"remount,size={size}"
        subprocess.run(["mount", "-o", options, str(self.disk)], check=True)

    # --- before it begins -----------------------------------------------------------------

    def _settle(self, machine: Machine) -> None:
        agents.plain(machine)
        machine.env[clock.FILE] = str(self.clocks.file)
        is_hub = machine is self.fleet.hub
        desk = self.phone.desk
        chat = {"telegram": ChatConfig("BOT", desk.room, url=desk.url)} if is_hub else {}
        quiet = NotifyConfig(quiet="22:00-07:00", zone=self.clocks.zone, runs="end")
        config = Config(
            name=machine.name,
            channel={FIRST: http.Options(f"127.0.0.1:{machine.port}")},
            labels=(f"on-{machine.name}",),
            slots=SLOTS[machine.name],
            lease_s=LEASE_S,
            path=machine.env["PATH"],
            lan=False,
            chat=chat,
            notify=quiet if is_hub else NotifyConfig(),
            # What an agent left lies beside its folder (marks), for the next one to find.
            sandbox=SandboxConfig(default="off"),
        )
        machine.home.put("config.toml", config_text(config))
        if machine.name == "laptop":
            return
        known = {"stuck": self._stuck(), "planner": _planner()}
        machine.home.put("agents.json", json.dumps({"version": 1, "agents": known}).encode())

    def _stuck(self) -> dict[str, Any]:
        program = self.fleet.root / "bin" / "stuck"
        source = (HERE / "stuck_agent.py").read_text(encoding="utf-8")
        program.write_text(f"#!{sys.executable}\n{source}", encoding="utf-8")
        program.chmod(0o755)
        return {
            "title": "Stuck", "protocol": "acp", "command": ["stuck"], "program": "stuck",
            "version_probe": ["stuck", "--version"], "health": HEALTH,
        }  # fmt: skip


def _planner() -> dict[str, Any]:
    return {
        "title": "Planner", "protocol": "acp",
        "command": [sys.executable, "-m", "tests.e2e.scripted_agent"], "program": sys.executable,
        "version_probe": [sys.executable, "--version"],
        "env": {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
    }  # fmt: skip
