"""The short form of `make night`: a stand-in, a worker that is killed, a question for the phone."""

import pytest

from tests.e2e.night import __main__ as night
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@proves("chaos.night", "schedule.stand-ins", "chat.approval")
def test_a_night_goes_by_itself_and_its_log_says_what_happened(capsys):
    pytest.importorskip("telegram", reason="pip install 'muster-fleet[telegram]'")
    pytest.importorskip("apprise", reason="pip install 'muster-fleet[notify]'")
    code = night.main(["--short"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "3 slots decided, 3 fired, 3 runs done, 0 runs not done" in said
