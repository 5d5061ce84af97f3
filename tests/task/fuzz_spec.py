"""Feeds mutated specs to the reader and the checker for as long as is asked.

    python -m tests.task.fuzz_spec [SECONDS] [SEED]

Whatever comes: a spec, or SpecErrors with places inside the text, within a second or two. A spec
that is admitted yields an order for each phase and a plan that starts something. What fails is
printed with its seed and written out in full, so that it can become a test.
"""

import random
import sys
import time
from pathlib import Path

from muster.task.check import check
from muster.task.graph import plan
from muster.task.spec import parse
from muster.task.template import phase_order
from muster.task.values import command

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
PIECES = [
    b"[", b"]", b"{", b"}", b": ", b"- ", b"\n", b"\n  ", b"&a ", b"*a", b"!!str ", b"<<: ", b"|\n",
    b">\n", b"'", b'"', b"#", b"%", b"\0", b"\xff", b"\xc3", b"\t", b"---\n", b"...\n", b"? ",
    b"${test.summary}", b"${each.path}", b"$MUSTER_TEST_SUMMARY ", b"$(", b"`", b"$((", b"<<EOF", b"after: [test]", b"race: 3",
    b"each: '*'", b"by: human", b"../", b"/home/x", b"null", b"true", b"9" * 40, b"10m", b"\\",
    "\u202e".encode(), "\u2028".encode(), b"  ", b"phases:", b"needs: {", b"eval ",
]  # fmt: skip
SECONDS_MAX = 3.0


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """A few cuts, copies and insertions."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                del data[at : at + rng.randint(1, 30)]
            case 1:
                data[at:at] = rng.choice(PIECES) * rng.choice([1, 1, 1, 2, 50])
            case 2:
                start = rng.randrange(len(data) + 1)
                data[at:at] = data[start : start + rng.randint(1, 200)]
            case 3:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case _:
                lines = bytes(data).split(b"\n")
                rng.shuffle(lines)
                data = bytearray(b"\n".join(lines)) if rng.random() < 0.1 else data
    return bytes(data)


def probe(raw: bytes) -> bool:
    """Whether the text is a spec that can run; AssertionError when a promise is broken."""
    report = check(raw)
    lines = raw.count(b"\n") + raw.count(b"\r") + 2
    for problem in report.problems:
        assert 1 <= problem.line <= lines, problem
        assert problem.column >= 1, problem
        assert problem.sentence.isprintable(), problem
    if report.spec is None:
        assert report.problems, "refused without a word"
    else:
        spec = parse(raw)
        assert spec == report.spec
        first = plan(spec, {})
        assert first.start or first.ask or first.match, "admitted, and nothing can start"
        for name, phase in spec.phases.items():
            instance = "1" if phase.race else "x" if phase.each else ""
            assert phase_order(spec, name, instance) == phase_order(report.spec, name, instance)
            sources = [phase.do] if set(phase.agents) == {"shell"} else []
            for source in [*sources, phase.check or ""]:
                assert command(source) == source.replace("\r\n", "\n")
    return report.spec is not None


def fuzz(seconds: float, seed: int) -> tuple[int, int]:
    """How many texts were tried, and how many of them could run."""
    rng = random.Random(seed)
    corpus = [file.read_bytes() for file in EXAMPLES]
    tried = ran = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        raw = mutated(rng.choice(corpus), rng)
        tried += 1
        try:
            start = time.process_time()
            good = probe(raw)
            assert time.process_time() - start < SECONDS_MAX, "too slow"
        except Exception:
            print(f"seed {seed}, text {tried}: {raw!r}", file=sys.stderr)
            raise
        ran += good
        # What still runs is a better start than the examples: mutations add up.
        if good and len(corpus) < 200:
            corpus.append(raw)
    return tried, ran


if __name__ == "__main__":
    limit = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**9)
    print(f"seed {chosen}: {fuzz(limit, chosen)} texts tried, and able to run")
