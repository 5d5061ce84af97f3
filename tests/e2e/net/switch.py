"""A switch between network namespaces that it makes itself: `python -m tests.e2e.net.switch SEED NAME…`.

Each name is a host: a namespace with loopback and one device, `eth0`, 10.78.0.N and fd78::N. No name
stands for a namespace in the system: it lives while this process, or somebody in it, does, and is
entered as /proc/PID/fd/N. So nothing can be left lying, and two switches know nothing of each other.

It is told what to do in lines of JSON on its standard input, and answers each with a line. When the
input ends, for whatever reason (whoever made it was killed), it kills every process that is in one
of its namespaces, removes the folders that it was given to look after, and ends.

The host's own network is not touched: no device, address, route or rule of it is made or changed.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.e2e.net.fabric import Fabric, mac_of, rule_of, told

_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP: Final = 2
_IFF_NO_PI: Final = 0x1000
_FRAME_MAX: Final = 65536
# So many frames of one host, then it is the turn of the next.
_FRAMES_AT_ONCE: Final = 64
_END_S: Final = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int) -> None:
    """This thread is in another network namespace from now on. Raises: OSError."""
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Switch:
    """The hosts and what is under way between them."""

    def __init__(self, names: Sequence[str], seed: str) -> None:
        self.fabric = Fabric(names, seed)
        self.namespaces: dict[str, int] = {}
        self._taps: dict[str, int] = {}
        self._under_way: list[tuple[float, int, str, bytes]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._folders: list[str] = []
        self._said = b""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for number, name in enumerate(names, 1):
                self._make(number, name, len(names))
                enter(home)
        finally:
            enter(home)
            os.close(home)

    def _make(self, number: int, name: str, count: int) -> None:
        if _libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.namespaces[name] = here
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TAP | _IFF_NO_PI))
        self._taps[name] = tap
        lines = [
            "link set lo up",
            f"link set eth0 address {mac_of(number).hex(':')}",
            f"addr add 10.78.0.{number}/24 broadcast 10.78.0.255 dev eth0",
            f"addr add fd78::{number}/64 dev eth0 nodad",
            "link set eth0 up",
        ]
        # Everybody knows everybody: between two hosts goes what they say, and no question who is who.
        for other in range(1, count + 1):
            if other != number:
                mac = mac_of(other).hex(":")
                lines += [
                    f"neigh replace 10.78.0.{other} lladdr {mac} dev eth0 nud permanent",
                    f"neigh replace fd78::{other} lladdr {mac} dev eth0 nud permanent",
                ]
        # What this thread starts is where this thread is.
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)

    async def run(self) -> None:
        """Pass on frames and do what is said until the input ends."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        for name, tap in self._taps.items():
            loop.add_reader(tap, self._on_frames, name, tap)
        loop.add_reader(0, self._on_input, over)
        loop.add_signal_handler(signal.SIGTERM, over.set)
        hosts = {
            name: {"namespace": f"/proc/{os.getpid()}/fd/{fd}", "address": f"10.78.0.{n}",
                   "inode": os.fstat(fd).st_ino}
            for n, (name, fd) in enumerate(self.namespaces.items(), 1)
        }  # fmt: skip
        print(json.dumps(hosts), flush=True)
        await over.wait()
        for fd in (0, *self._taps.values()):
            loop.remove_reader(fd)

    # --- frames --------------------------------------------------------------------------

    def _on_frames(self, name: str, tap: int) -> None:
        for _ in range(_FRAMES_AT_ONCE):
            try:
                frame = os.read(tap, _FRAME_MAX)
            except BlockingIOError:
                break
            now_s = time.monotonic()
            for out in self.fabric.pass_on(name, frame, now_s):
                if out.due_s <= now_s:
                    self._put(out.host, frame)
                else:
                    self._number += 1
                    heapq.heappush(
                        self._under_way, (out.due_s, self._number, out.host, frame)
                    )  # fmt: skip
        self._arm()

    def _put(self, host: str, frame: bytes) -> None:
        # A host that does not keep up loses frames, as with any switch.
        with contextlib.suppress(OSError):
            os.write(self._taps[host], frame)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._under_way:
            loop = asyncio.get_running_loop()
            wait_s = max(0.0, self._under_way[0][0] - time.monotonic())
            self._timer = loop.call_later(wait_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now_s:
            _, _, host, frame = heapq.heappop(self._under_way)
            self._put(host, frame)
        self._arm()

    # --- what is said --------------------------------------------------------------------

    def _on_input(self, over: asyncio.Event) -> None:
        read = os.read(0, 65536)
        self._said += read
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            print(json.dumps(self._do(json.loads(line))), flush=True)
        if not read:
            over.set()

    def _do(self, said: dict[str, Any]) -> Any:
        match said:
            case {"do": "rule", "from": source, "to": target, "rule": rule}:
                self.fabric.direction(source, target).set(rule_of(rule))
            case {"do": "counters", "from": source, "to": target}:
                return told(self.fabric.direction(source, target).counters)
            case {"do": "behind", "host": host, "on": on}:
                self.fabric.behind(host, on=on)
            case {"do": "remove", "folder": folder}:
                self._folders.append(folder)
            case {"do": "keep"}:
                self._folders.clear()
            case _:
                raise ValueError(f"a switch does not know {said}")
        return {}

    # --- the end -------------------------------------------------------------------------

    def close(self) -> None:
        """End whoever is in a namespace of ours; then nothing of it is left."""
        ours = {_mark(os.fstat(fd)) for fd in self.namespaces.values()}
        end_s = time.monotonic() + _END_S
        while (found := inside(ours)) and time.monotonic() < end_s:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        for fd in (*self._taps.values(), *self.namespaces.values()):
            os.close(fd)


def _mark(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def inside(namespaces: set[tuple[int, int]]) -> list[int]:
    """Every living process in one of these network namespaces (device and inode), never our own."""
    own, found = _mark(os.stat("/proc/self/ns/net")), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mark = _mark(os.stat(folder / "ns" / "net"))
            if mark in namespaces and mark != own:
                found.append(int(folder.name))
    return sorted(found)


def main(seed: str, *names: str) -> int:
    switch = Switch(names, seed)
    # Ctrl-C is for whoever made us; our input ends when they do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(switch.run())
    except BrokenPipeError:
        # Nobody hears the answer, so the input has ended, too.
        pass
    finally:
        switch.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
