"""Another way to run an agent is added to a copy of the tree, and the real shim runs it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.promise import proves

from muster.agent.base import environment
from muster.agent.catalogue import load
from muster.agent.dialects import DIALECTS
from muster.agent.drivers import DRIVERS

SOURCE = Path(__file__).parent.parent.parent / "src" / "muster"
# The whole of what somebody writes for a program that reads its order and answers in lines of JSON.
DRIVER = '''\
"""A program that is asked on its standard input and answers in lines of JSON."""

import json

from muster.agent.driver import Driver


class JsonDriver(Driver):
    is_plain = False
    asks_before_kill = False

    def __init__(self, order):
        super().__init__(order)
        self.argv = order["argv"]
        self.stdin = json.dumps({"asked": order["prompt"]}).encode() + b"\\n"
        self.said = b""

    def output(self, stream, data):
        if stream == "stdout":
            self.said += data
        return []

    def closing(self):
        texts = [json.loads(line)["says"] for line in self.said.splitlines()]
        return [("agent.output", {"stream": "message", "text": text}) for text in texts]

    def outcome(self, code):
        return {"status": "ok" if code == 0 else "failed", "exit_code": code, "summary": "told"}
'''
PROGRAM = """\
#!/usr/bin/env python3
import json, sys
asked = json.loads(sys.stdin.readline())["asked"]
for word in asked.split():
    print(json.dumps({"says": word}), flush=True)
"""
RUN = """\
import asyncio, json, sys
from muster.agent.base import AttemptOrder
from muster.agent.catalogue import load
from muster.agent.discovery import Discovery
from muster.agent.process import Runner

async def run(order):
    events = []
    attempt = await Runner(Discovery(load())).start(order, lambda e: events.append([e.kind, e.fields]))
    outcome = await attempt.wait()
    print(json.dumps({"events": events, "status": outcome.status, "summary": outcome.summary}))

order = json.loads(sys.stdin.read())
asyncio.run(run(AttemptOrder(task="t1", epoch=(1, 1), **order)))
"""


@proves("agent.drivers-by-name")
def test_a_headless_program_is_one_class_its_row_and_an_entry_of_the_catalogue(tmp_path):
    tree = tmp_path / "muster"
    shutil.copytree(SOURCE, tree, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "agent" / "json_lines.py").write_text(DRIVER)
    table = tree / "agent" / "drivers.py"
    import_ = "from muster.agent.json_lines import JsonDriver\nfrom muster.agent.relay"
    text = table.read_text().replace("from muster.agent.relay", import_, 1)
    table.write_text(text.replace('"shell":', '"json": JsonDriver, "shell":'))
    entry = {
        "id": "words",
        "name": "Words",
        "version": "1.0.0",
        "description": "Says words",
        "distribution": {"npx": {"package": "words"}},
        "muster": {"protocol": "json"},
    }
    (tree / "agent" / "known" / "words.json").write_text(json.dumps(entry))
    program = tmp_path / "bin" / "words"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    order = {
        "agent": "words",
        "cwd": str(tmp_path),
        "env": environment({**os.environ, "PATH": path}),
        "prompt": "say these words",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(order),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    said = [fields["text"] for kind, fields in told["events"] if kind == "agent.output"]
    assert (told["status"], said) == ("ok", ["say", "these", "words"])
    assert told["events"][-1][0] == "agent.end"


@proves("agent.drivers-by-name")
def test_every_driver_of_the_catalogue_is_in_the_table_and_every_row_is_in_use():
    known = [entry for entry in load().values() if not entry.is_plain]
    plain = {name for name, driver in DRIVERS.items() if driver.is_plain}
    named = {entry.driver for entry in known}
    named |= {"headless" for entry in known if entry.headless}
    assert named | plain == set(DRIVERS)


@proves("agent.drivers-by-name")
def test_every_dialect_of_the_catalogue_is_in_the_table_and_every_row_is_in_use():
    assert {e.headless.dialect for e in load().values() if e.headless} == set(DIALECTS)
