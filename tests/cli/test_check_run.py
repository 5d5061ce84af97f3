"""A check of merged files, as a person would run it."""

from pathlib import Path

import pytest

from muster.verbs import check_run
from muster.verbs.check_run import Check, CheckFailed
from tests.e2e.fleet import until
from tests.git.repositories import wait
from tests.promise import proves


@proves("git.land-checks-again")
def test_a_check_runs_in_the_folder_and_knows_nothing_of_the_daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSTER_HOME", "/somewhere")
    monkeypatch.setenv("OWN", "kept")
    wait(check_run.run(Check('echo "$OWN:$MUSTER_HOME" > said'), tmp_path))
    assert (tmp_path / "said").read_text() == "kept:\n"


@proves("git.land-checks-again")
@pytest.mark.parametrize(
    ("check", "why"),
    [
        (Check("echo before; false; echo after"), "ended with exit code 1"),
        (Check("echo before; false | true", "bash"), "ended with exit code 1"),
        (Check("echo before; sleep 60"), "took longer than"),
    ],
)
def test_what_fails_says_why_and_the_end_of_its_output(tmp_path, monkeypatch, check, why):
    monkeypatch.setattr(check_run, "PHASE_TIMEOUT_MS", 500)
    with pytest.raises(CheckFailed, match=why) as caught:
        wait(check_run.run(check, tmp_path))
    assert caught.value.output == "before\n"


@proves("git.land-checks-again")
def test_nothing_that_a_check_left_in_the_background_lives_on(tmp_path):
    wait(check_run.run(Check("sleep 60 & echo $! > pid"), tmp_path))
    stat = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")

    def ended() -> bool:
        try:
            return stat.read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    until(ended, "it ends")
