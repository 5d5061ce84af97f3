"""What an attempt says about itself, as it fits into entries."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.cores import attempt_ended
from tests.promise import proves

from muster.limits import BODY_BYTES_MAX
from muster.log import canon
from muster.node.tasks.attempt_body import AttemptEvent, event_body, fit
from muster.task.kinds import TaskSettle, body_bytes

TASK = "ab" * 16
# Six bytes each in an entry, two, and four; a half of a character; and what needs one.
CHARACTERS = ["\x01", '"', "\N{GRINNING FACE}", "\ud800", "x"]


@proves("node.agent-events-bounded")
@pytest.mark.parametrize("character", CHARACTERS)
def test_the_end_of_an_attempt_fits_into_its_entry_and_into_the_owners(character):
    much = character * 70_000
    ended = attempt_ended(
        TASK, (1, 1), "done", summary=much, reason=much, commit="c" * 40,
        values={"agent": "shell", "output": much, "x": much, "machine": "build"},
        artefacts=tuple(character * 112 + str(n) for n in range(400)), usage={much: 2**70, **{f"n{n}" + "x" * 36: 1 for n in range(40)}, "é": 1, "a b": 1},
    )  # fmt: skip
    body = ended.body
    raw = body_bytes(body)
    assert len(raw) <= BODY_BYTES_MAX
    assert canon.decode(raw, "it", size_max=BODY_BYTES_MAX)
    settled = TaskSettle(TASK, "failed", (1, 1), body.summary, body.reason[:300], body.commit,
                         body.values, body.artefacts, body.usage)  # fmt: skip
    assert len(body_bytes(settled)) <= BODY_BYTES_MAX
    assert body.values["agent"] == "shell"
    assert body.values["machine"] == "build", "the short ones are whole"
    for text in (body.summary, body.reason, body.values["output"]):
        assert text.endswith("…[cut]")
    assert body.artefacts[-1].endswith("more]")


@proves("node.agent-events-bounded")
@pytest.mark.parametrize("character", CHARACTERS)
def test_an_event_that_is_too_large_is_cut_and_not_left_out(character):
    fields = {"text": character * 50_000, "paths": [character * 5_000] * 300, "n": 5}
    raw = event_body(AttemptEvent(TASK, (1, 1), "agent.tool", fields))
    assert len(raw) <= BODY_BYTES_MAX
    body = canon.decode(raw, "it", size_max=BODY_BYTES_MAX)
    assert body["text"].endswith("…[cut]")
    assert body["paths"][-1].endswith("more]")
    assert (body["n"], body["task"]) == (5, TASK)


@proves("node.agent-events-bounded")
@settings(deadline=None)
@given(st.text(st.characters(), max_size=200), st.integers(0, 300))
def test_a_text_is_whole_or_as_long_as_fits_with_a_mark(text, most):
    kept = fit(text, most)
    size = len(canon.encode(kept)) - 2
    assert size <= most
    whole = text.encode("utf-8", "replace").decode()
    if len(canon.encode(whole)) - 2 <= most:
        assert kept == whole
    elif most >= len("…[cut]".encode()):
        assert kept.endswith("…[cut]")
        assert whole.startswith(kept.removesuffix("…[cut]"))
        assert size > most - 6, "no room was wasted"
