"""Who is told of a daemon that does not come back by itself, and how often."""

import json
import subprocess
import sys

import pytest
from tests.promise import proves

from muster.limits import SERVICE_FAILURES_MS, SERVICE_TOLD_AGAIN_MS
from muster.node import fallen
from muster.node.fallen import Past, after, text
from muster.node.host.home import Home

MINUTE = 60_000
FAILED = {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "8"}


@pytest.fixture
def home(tmp_path) -> Home:
    (tmp_path / "home").mkdir(mode=0o700)
    return Home(tmp_path / "home")


@proves("service.fallen-is-told")
def test_three_failures_within_half_an_hour_are_told_once_in_six():
    past, told = Past(), []
    for minute in (0, 20, 40, 45, 46, 80, 100, 300):
        past, is_due = after(past, minute * MINUTE + SERVICE_TOLD_AGAIN_MS)
        told += [minute] * is_due
    assert told == [45]
    now_ms = 45 * MINUTE + 2 * SERVICE_TOLD_AGAIN_MS
    for more in range(3):
        past, is_due = after(past, now_ms + more)
    assert is_due
    # A clock that is set back neither hides a failure nor keeps it for ever.
    for more in range(3):
        past, is_due = after(past, SERVICE_TOLD_AGAIN_MS + more)
    assert is_due
    assert len(past.failed_ms) == 3


@proves("service.fallen-is-told")
def test_an_end_that_a_person_has_to_mend_is_told_at_once_and_one_that_was_wanted_never(home):
    assert text(home, {}, 0) is None
    assert text(home, {"SERVICE_RESULT": "success", "EXIT_STATUS": "0"}, 0) is None
    title, body = text(home, {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "4"}, 0)
    assert "has ended, and is not started again" in title
    assert "exit code 4" in body
    now_ms = 2 * SERVICE_TOLD_AGAIN_MS
    assert text(home, FAILED, now_ms) is None
    assert text(home, {"SERVICE_RESULT": "signal", "EXIT_STATUS": "KILL"}, now_ms + 1) is None
    title, body = text(home, FAILED, now_ms + 2)
    assert "fails again and again" in title
    assert "3 times within 30 minutes (the last time: exit-code, 8)" in body
    # What somebody else left in its place is forgotten.
    for junk in (b"", b"[]", b'{"failed_ms": "x"}', b"\xff" * 100):
        (home.path / fallen.FILE).write_bytes(junk)
        assert text(home, FAILED, now_ms + SERVICE_FAILURES_MS) is None


@proves("service.fallen-is-told")
def test_what_cannot_be_told_stands_in_the_journal_without_its_address(home):
    child = [sys.executable, "-P", "-m", "muster.node.fallen", str(home.path)]
    said = {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "4"}
    done = subprocess.run(child, env=said, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "nobody is to be told"
    place = home.path / "notify.toml"
    place.write_text('[service.phone]\nurl = "json://127.0.0.1:1/secret"\nas = "push"\n')
    place.chmod(0o600)
    done = subprocess.run(child, env=said, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "phone was not told that the daemon has ended" in done.stderr
    assert "secret" not in done.stderr
    place.chmod(0o644)
    done = subprocess.run(child, env=said, capture_output=True, text=True, check=False)
    assert done.returncode > 1
    assert json.dumps(done.stderr).count("\\n") == 1, "one sentence"
