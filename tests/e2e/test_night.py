"""The short form of `make night`, and that its account sees what is missing."""

from typing import Any

import pytest

from tests.e2e.night import __main__ as night
from tests.e2e.night.account import Account, Event
from tests.e2e.night.plan import Plan
from tests.promise import proves

SLOT = 1_000_000


@pytest.mark.e2e
@pytest.mark.timeout(400)
@proves("chaos.night", "schedule.stand-ins", "chat.approval")
def test_a_night_goes_by_itself_and_its_log_says_what_happened(capsys):
    pytest.importorskip("telegram", reason="pip install 'muster-fleet[telegram]'")
    pytest.importorskip("apprise", reason="pip install 'muster-fleet[notify]'")
    code = night.main(["--short"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "3 slots decided, 3 fired, 3 runs done, 0 runs not done" in said


def fire(run: str = "r", slot: int = SLOT, by: str = "hub") -> tuple[str, str, dict[str, Any]]:
    return by, "schedule.fire", {"schedule": "s", "slot": slot, "run": run, "late_ms": 0}


OPENED = ("hub", "run.open", {"run": "r", "name": "tests"})
ENDED = ("hub", "run.settle", {"run": "r", "outcome": "done"})
TOLD = ("hub", "incident.notify", {"key": "run:r", "ok": True})
UNTOLD = ("hub", "incident.notify", {"key": "run:r", "ok": False})
WRONG = ("hub", "incident.open", {"key": "disk", "severity": "warning", "title": "full"})
OVER = ("hub", "incident.close", {"key": "disk", "reason": "it is over"})
WHOLE = (fire(), OPENED, ENDED, TOLD)


@proves("chaos.night")
@pytest.mark.parametrize(
    ("entries", "missing"),
    [
        (WHOLE, ()),
        ((*WHOLE, WRONG, OVER), ()),
        ((*WHOLE, WRONG), ("incident disk of hub is open",)),
        ((*WHOLE, WRONG, OVER, WRONG), ("incident disk of hub is open",)),
        ((), ("the slot of tests has []", "0 entries decide 1 slots")),
        ((fire(by="laptop"), OPENED, ENDED, TOLD), ("not one schedule.fire by hub",)),
        ((fire(), *WHOLE), ("not one schedule.fire", "2 entries", "opened", "ended")),
        ((*WHOLE, fire("other", SLOT + 1)), ("2 entries", "opened", "ended", "told 0 times of other")),
        ((*WHOLE, OPENED), ("one run that opened",)),
        ((fire(), OPENED, TOLD), ("one run that ended",)),
        ((fire(), OPENED, ("hub", "run.settle", {"run": "r", "outcome": "failed"}), TOLD),
         ("the run tests is failed",)),
        ((*WHOLE, TOLD), ("told 2 times of tests",)),
        ((fire(), OPENED, ENDED, UNTOLD), ("told 0 times of tests",)),
    ],
)  # fmt: skip
def test_what_a_night_lacks_is_said_by_its_log(entries, missing):
    events = [Event((n, 0), by, kind, body) for n, (by, kind, body) in enumerate(entries)]
    account = Account(events, {"s": "tests"})
    found = list(account.missing({Plan("tests", "", 1): SLOT}))
    assert len(found) == len(missing), found
    for said, words in zip(found, missing, strict=True):
        assert words in said
