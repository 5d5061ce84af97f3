"""When an attempt counts as stuck, and when it is only slow.

A story is drawn as a list of steps: a number waits for so many seconds, `cpu(ms)` is what all its
processes use in each second from here on, `asking(yes)` whether a model is asked, everything else
happens. It is looked at as its watch does.
"""

import random
from typing import Any

import msgspec
import pytest
from tests.promise import proves

from muster.task.detector import Detector, Seen, Thresholds, Verdict, words_of

PROMPT = ("agent.prompt", {"agent": "claude", "text": "do it"})
WORD = ("agent.output", {"text": "on it"})
EDIT = ("agent.tool", {"call": "e", "title": "Edit a.py", "kind": "edit", "status": "completed"})
ASK = ("agent.ask", {"ask": "1"})
ANSWER = ("agent.decision", {"ask": "1", "answer": "allow"})
DEAF = {"steers": False}


def cpu(ms: int) -> tuple[str, Any]:
    return "cpu", ms


def asking(yes: bool | None) -> tuple[str, Any]:
    return "asking", yes


def ended(ending: str, ms: int = 0, tokens: int = 0) -> tuple[str, Any]:
    return "call", (ending, ms, tokens)


def tool(call: str, status: str = "completed", **more: Any) -> tuple[str, Any]:
    fields = {"call": call, "title": "Bash ls", "kind": "execute", "input": '{"command": "ls"}'}
    return "agent.tool", {**fields, "status": status, **more}


def using(tokens: int, **more: int) -> tuple[str, Any]:
    return "agent.usage", {"input_tokens": tokens, "output_tokens": 0, **more}


def told(
    *steps: Any, steers: bool = True, budget: int = 0, **over: Any
) -> list[tuple[int, Verdict]]:
    """What was found in a story, and when; a story that an end ends is told no further."""
    limits = Thresholds(**over)
    detector = Detector(limits, steers=steers, budget=budget)
    now_s = used_ms = 0.0
    per_s, asked = 0, False
    found: list[tuple[int, Verdict]] = []

    def look() -> None:
        seen = Seen(round(used_ms) if detector.is_quiet else None, asked)
        if (verdict := detector.look(now_s, seen)) is not None:
            found.append((round(now_s), verdict))

    def is_over() -> bool:
        return bool(found) and found[-1][1].deed != "tell"

    look()
    for step in steps:
        if isinstance(step, int | float):
            end_s = now_s + step
            while now_s < end_s and not is_over():
                pause_s = min(limits.look_s, end_s - now_s)
                now_s += pause_s
                used_ms += per_s * pause_s
                look()
        elif step == "sleeps":
            now_s += 8 * 3600
            look()
        elif step == "changes":
            if detector.wants_change:
                detector.progressed()
        elif step[0] == "cpu":
            per_s = step[1]
        elif step[0] == "asking":
            asked = step[1]
        elif step[0] == "call":
            detector.call_ended(*step[1])
        else:
            detector.happened(*step)
        if is_over():
            return found
    look()
    return found


def names(*steps: Any, **how: Any) -> list[str]:
    return [f"{v.detector} {v.deed}" for _, v in told(*steps, **how)]


SAME = [tool(str(n), output="no") for n in range(5)]
OTHER = [tool(str(n), output=str(n)) for n in range(20)]
ERRORS = [tool(str(n), "failed", input=str(n), output="no") for n in range(5)]
GOOD = [tool(str(n), input=f"cat {n}", output=str(n)) for n in range(20)]
READS = [tool(str(n), ("completed", "failed")[n % 4 == 3], input=str(n)) for n in range(40)]
FAILED = [tool(str(n), "failed", output="no") for n in range(5)]
CASES: list[tuple[str, list[Any], dict[str, Any], list[str]]] = [
    # --- silent
    ("says nothing, asked, says nothing", [PROMPT, 900], {}, ["silent tell", "silent lose"]),
    ("cannot be asked", [PROMPT, 900], DEAF, ["silent lose"]),
    ("was asked, and went on", [PROMPT, 320, WORD, 200], {}, ["silent tell"]),
    ("goes silent again", [PROMPT, 320, PROMPT, 400], {}, ["silent tell", "silent lose"]),
    (
        "worked between", [PROMPT, 320, tool("1"), 320, WORD, 100], {},
        ["silent tell", "silent tell"],
    ),
    ("has a busy processor", [PROMPT, cpu(11), 3600], {}, []),
    ("idles as programs do", [PROMPT, cpu(9), 900], DEAF, ["silent lose"]),
    ("asks its model", [PROMPT, asking(True), 900], {}, []),
    ("nobody sees whether it asks", [PROMPT, asking(None), 1700], DEAF, []),
    ("nobody sees it for half an hour", [PROMPT, asking(None), 1900], DEAF, ["silent lose"]),
    ("waits for a person", [PROMPT, ASK, 3000, ANSWER, 200], {}, []),
    ("waited for a person, then nothing", [ASK, 3000, ANSWER, 400], DEAF, ["silent lose"]),
    ("its machine slept", [PROMPT, 100, "sleeps", 100, "sleeps", 60, WORD], {}, []),
    ("is switched off", [PROMPT, 9000], {"silent": 0}, []),
    # --- tool
    ("a tool does nothing", [tool("1", "in_progress"), 1300], {}, ["tool lose"]),
    ("a tool takes its time", [tool("1", "in_progress"), 1100], {}, []),
    ("a tool works", [tool("1", "in_progress"), cpu(400), 9000], {}, []),
    (
        "a tool says how long it may take",
        [tool("1", "in_progress", input='{"timeout": 3600000}'), 3500], {}, [],
    ),
    (
        "and takes longer",
        [tool("1", "in_progress", input='{"timeout_s": 3600}'), 3700], {}, ["tool lose"],
    ),
    *(
        (
            f"it allows itself {odd[:8]} of {len(odd)}",
            [tool("1", "in_progress", input=f'{{"timeout": {odd}}}'), 1300], {}, ["tool lose"],
        )
        for odd in ("9" * 400, "1e999", "1e300", "NaN", "-Infinity", "9" * 5000, "true", "0.5")
    ),
    (
        "it allows itself a fraction more",
        [tool("1", "in_progress", input='{"timeout_s": 3600.5}'), 3500], {}, [],
    ),
    ("its input is no JSON", [tool("1", "in_progress", input="["), 1300], {}, ["tool lose"]),
    ("it went on beside its tool", [tool("1", "in_progress"), *[100, WORD] * 20], {}, []),
    ("waits for leave to use it", [tool("1", "pending"), ASK, 2000], {}, []),
    ("loops while a person is asked", [ASK, *SAME, *SAME, 100], {}, []),
    ("is told after the answer", [ASK, *SAME, *SAME, 100, ANSWER, 100], {}, ["loop tell"]),
    ("errors while a person is asked", [ASK, *ERRORS, 100, ANSWER, 10], {}, ["loop tell"]),
    ("uses much while a person is asked", [ASK, using(300_000), 100, ANSWER, 10], {}, ["burn tell"]),
    ("looped, asked, then worked", [*SAME, 10, ASK, *SAME, 9, EDIT, ANSWER, 100], {}, ["loop tell"]),
    ("a second question is open", [ASK, ("agent.ask", {"ask": "2"}), *SAME, ANSWER, 100], {}, []),
    # --- stall
    ("a model stalls once", [ended("stalled", 180_000), 10], {}, []),
    (
        "a model stalls again",
        [200, ended("stalled", 180_000), 180, ended("stalled", 180_000), 10], {}, ["stall lose"],
    ),
    (
        "two requests beside each other",
        [200, ended("stalled", 180_000), ended("stalled", 180_000), 10], {}, [],
    ),
    (
        "it answered between",
        [200, ended("stalled", 180_000), ended("answered"), 180, ended("stalled", 180_000), 10],
        {}, [],
    ),
    # --- loop
    ("the same call, the same answer", [*SAME, 10, *SAME, 10], {}, ["loop tell", "loop fail"]),
    ("four of them", [*SAME[:4], 10], {}, []),
    ("something else between", [*SAME[:4], EDIT, *SAME[:4], 10], {}, []),
    ("the same call, other answers", [*OTHER[:19], 10], {}, []),
    ("too often", [*OTHER, 10], {}, ["loop tell"]),
    ("waits by asking again", [*[e for x in SAME * 9 for e in (x, 40)]], {}, []),
    ("fails as slowly", [*[e for x in FAILED for e in (x, 40)]], {}, ["loop tell"]),
    ("errors, and no change", [*ERRORS, 10], {}, ["loop tell"]),
    ("errors with changes between", [*[e for x in ERRORS for e in (x, EDIT)], 10], {}, []),
    ("errors again after it was told", [*ERRORS, 10, *ERRORS, 10, *ERRORS, 10], {}, ["loop tell"]),
    ("only reads, and some of it is not there", [*READS, 10] * 5, {}, ["loop tell"]),
    ("errors, and it changed a file through a shell", [*ERRORS, "changes", 10], {}, []),
    ("errors, and then the same", [*ERRORS, 10, *SAME, 10], {}, ["loop tell", "loop tell"]),
    ("was told, then worked", [*SAME, 10, *[EDIT, *GOOD] * 9, *SAME, 10], {}, ["loop tell", "loop tell"]),
    ("was told, then read", [*SAME, 10, *GOOD * 9, *SAME, 10], {}, ["loop tell", "loop tell"]),
    ("was told, then worked, then errors", [*SAME, 10, *[EDIT, *GOOD] * 9, *ERRORS, 10], {}, ["loop tell", "loop tell"]),
    ("goes on before it was told", [*SAME * 9, 10, WORD, 100], {}, ["loop tell"]),
    ("other answers, again", [*OTHER, 10, *OTHER, 10], {}, ["loop tell", "loop fail"]),
    ("loops are no matter here", [*SAME, *ERRORS, 10], {"repeats": 0, "errors": 0}, []),
    # --- burn
    ("uses much, changes nothing", [tool("0"), using(300_000), 10, using(900_000), 10], {}, ["burn tell"]),
    ("uses much, and a file changed", [tool("0"), using(300_000), "changes", 10], {}, []),
    ("uses much, and edits", [tool("0"), using(299_000), EDIT, using(500_000), 10], {}, []),
    ("reads what was cached", [using(290_000, cached_read_tokens=280_000), using(320_000, cached_read_tokens=300_000), 10], {}, []),
    ("a quarter of its budget", [using(30_000), 10], {"budget": 100_000}, ["burn tell"]),
    ("as its gateway counts", [ended("answered", 0, 200_000), ended("answered", 0, 200_000), 10], {}, ["burn tell"]),
]  # fmt: skip


@proves("health.detectors")
@pytest.mark.parametrize(
    ("steps", "how", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_an_attempt_is_stuck_where_nothing_comes_of_it_any_more(steps, how, expected):
    assert names(*steps, **how) == expected


@proves("health.detectors")
def test_what_is_found_is_found_within_ten_seconds_of_its_time():
    for steps, at_s in (
        ([PROMPT, 900], 300), ([tool("1", "in_progress"), 1400], 1200),
        ([3, WORD, 900], 303), ([*SAME, 20], 0),
    ):  # fmt: skip
        first = told(*steps, **DEAF)[0][0]
        assert at_s <= first <= at_s + 10, (steps, first)


@proves("health.no-false-alarm")
@pytest.mark.parametrize("seed", range(5))
def test_a_day_of_honest_slow_work_is_never_stuck(seed):
    """Slow models, long builds, waits for a person and for a service, a test that fails for hours,
    a machine that sleeps: whoever does that for 24 h is left alone.
    """
    chance = random.Random(seed)
    number = iter(range(1_000_000))

    def model() -> list[Any]:
        """Some do not answer once, and a few think for twenty minutes."""
        slow = chance.choice([2, 20, 170, 1200])
        stalls = [asking(True), 180, ended("stalled", 180_000), asking(False), 2]
        spent = ended("answered", slow * 1000, chance.randrange(4_000))
        return [
            *(stalls if chance.random() < 0.05 else []),
            asking(True), slow, asking(False), spent, WORD, chance.randrange(1, 60),
        ]  # fmt: skip

    def run(status: str, busy: int, s: int, command: str) -> list[Any]:
        call, given = f"r{next(number)}", {"title": f"Bash {command}", "input": command}
        return [
            tool(call, "in_progress", **given), cpu(busy), s, cpu(2),
            tool(call, status, output=f"took {s}.{next(number)} s", **given),
        ]  # fmt: skip

    def edit() -> list[Any]:
        call = f"e{next(number)}"
        return [tool(call, kind="edit", title=f"Edit {call}", input=call, output="ok"), "changes"]

    def step() -> list[Any]:
        return chance.choice([
            lambda: run("completed", 800, chance.randrange(60, 7200), "make"),
            lambda: run("completed", 0, chance.randrange(5, 1100), f"curl {chance.random()}"),
            lambda: [*edit(), *run("failed", 300, chance.randrange(5, 300), "pytest")],
            lambda: [e for _ in range(9) for e in run("completed", 0, 60, "gh run view")],
            lambda: [ASK, chance.randrange(600), ANSWER],
            lambda: ["sleeps"],
            lambda: [*edit(), *model()],
        ])()  # fmt: skip

    story: list[Any] = [PROMPT]
    while sum(each for each in story if isinstance(each, int)) < 24 * 3600:
        story += [*model(), *step()]
    assert told(*story) == []


@proves("health.told-first")
def test_an_agent_is_told_what_it_repeats():
    ((_, verdict),) = told(*SAME, 10)
    words = words_of(verdict)
    assert "'Bash ls' 5 times in a row" in words
    assert "ends as failed" in words
    ((_, erred),) = told(*ERRORS, 10)
    assert "ends as failed" not in words_of(erred), "of other calls each"
    ((_, asked),) = told(PROMPT, 310)
    assert words_of(asked).startswith("Are you there?")


@proves("health.detectors")
def test_what_an_agent_says_is_bounded_and_never_ends_its_watch():
    detector = Detector(Thresholds(), steers=True)
    for at in range(3_000):
        odd: dict[str, Any] = {
            "call": f"c{at}",
            "title": "x" * 500,
            "kind": None,
            "input": "[" * 5_000,
        }
        detector.happened("agent.tool", odd)
        detector.happened("agent.usage", {"input_tokens": "many", "cached_read_tokens": -1})
        detector.happened("agent.usage", {"input_tokens": 10**5000})
        detector.happened("agent.plan", {"entries": at})
    assert detector.look(0.0, Seen()) is None
    assert len(detector._open) <= 1_000


@proves("health.detectors")
@pytest.mark.parametrize("said", ['{"silent": -1}', '{"repeats": "many"}', '{"slow": 1}'])
def test_thresholds_are_numbers_of_ours(said):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(said.encode(), type=Thresholds)
