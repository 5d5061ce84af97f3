"""The ports that tests give to their machines."""

import subprocess
import sys
from pathlib import Path

from tests import ports


def test_a_port_is_given_to_one_test_of_all_processes(monkeypatch):
    few = range(20_000, 20_040)
    monkeypatch.setattr(ports, "_ports", lambda: few)
    mine = {ports.free_port() for _ in range(10)}
    code = (
        "from tests import ports; ports._ports = lambda: range(20_000, 20_040);"
        "print(*(ports.free_port() for _ in range(10)))"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert len(mine) == 10
    assert not mine & {int(port) for port in done.stdout.split()}


def test_no_port_is_one_that_the_system_hands_out():
    handed_out = ports._HANDED_OUT
    if ports._RANGE.exists():
        handed_out = int(ports._RANGE.read_text().split()[0])
    assert all(port < handed_out for port in ports._ports())
