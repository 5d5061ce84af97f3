"""Finding what is known by its words, beside FTS5 alone over the same texts.

A hundred thousand records of some 230 bytes lie in the log of one machine, as its daemon keeps
them: the core runs in this process, over files. Their words are drawn from 30,000 as those of a
language are: the n-th is 1/n as frequent as the first, of which the commonest thirty were left out,
for those are stop words. The index is deleted, and what makes it
anew, turn by turn, is a question. Then questions of eight words are asked, of which some are in
half of the records, through the whole step of the core: words are cut and counted, places are
found, what counts under each key is found out, who said it is looked up. Processor
time counts, so that what else the machine does hides nothing, without what reading it costs.

Theirs: a table of FTS5 over the same texts, with the same tokenizer, which is asked for any of the
words. It knows nothing of what counts.

At last two daemons: one is told something, the other is asked for it until it knows.
"""

import asyncio
import itertools
import random
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.node.cores import Cores

from bench.figure import Figure, p50, p99
from bench.fleet import Caller, Fleet
from muster.log import canon
from muster.log.stream import FLEET
from muster.memory.kinds import MemoryPut
from muster.store.sqlite import TOKENIZE, Database
from muster.store.store import Draft

BATCH: Final = 1_000
VOCABULARY: Final = 30_000
WORDS_OF_RECORD: Final = 32
QUESTION_WORDS: Final = 8
GAP_S: Final = 0.02

_Call = Callable[[list[str]], Any]


class Texts:
    """Records and questions, the same in every run."""

    def __init__(self, count: int) -> None:
        self._draw = random.Random(7)
        self.words = ["".join(self._syllables()) for _ in range(VOCABULARY)]
        self._weights = list(itertools.accumulate(1 / (n + 30) for n in range(VOCABULARY)))
        self.records = [self._text(WORDS_OF_RECORD) for _ in range(count)]

    def _syllables(self) -> list[str]:
        return [
            self._draw.choice("bcdfghklmnprstvz") + self._draw.choice("aeiou")
            for _ in range(self._draw.randint(2, 5))
        ]

    def _text(self, count: int) -> str:
        return " ".join(self._draw.choices(self.words, cum_weights=self._weights, k=count))

    def questions(self, count: int) -> list[list[str]]:
        """Words as frequent as in the records, so that most of them are in very many."""
        return [self._text(QUESTION_WORDS).split() for _ in range(count)]

    def known(self, count: int) -> list[tuple[int, list[str]]]:
        """Places of records, and five of the words of each."""
        places = [self._draw.randrange(len(self.records)) for _ in range(count)]
        return [(n, self._draw.sample(self.records[n].split(), 5)) for n in places]


class Raw:
    """FTS5 and nothing else."""

    def __init__(self, folder: Path, texts: Texts) -> None:
        self._database = database = Database(folder / "raw.db", derived=True)
        database.execute(f"create virtual table fts using fts5(key, text, tokenize='{TOKENIZE}')")
        start = time.process_time()
        for at in range(0, len(texts.records), BATCH):
            database.begin()
            rows = enumerate(texts.records[at : at + BATCH], at)
            sql = "insert into fts(rowid, key, text) values(?, ?, ?)"
            database.executemany(sql, [(n, f"k/{n}", text) for n, text in rows])
            database.commit()
        self.seconds = time.process_time() - start

    def ask(self, words: list[str]) -> None:
        any_of = " OR ".join(f'"{word}"' for word in words)
        sql = "select rowid from fts where fts match ? order by bm25(fts, 4.0, 1.0) limit 10"
        self._database.query(sql, (any_of,))


class World:
    """One machine, which knows all of the texts."""

    def __init__(self, folder: Path, texts: Texts) -> None:
        self._index = folder / "hub.index.db"
        self._cores = Cores("hub", folder=folder)
        self._hub = self._cores["hub"]
        self._cores.pass_ms(1_000)
        core = self._hub.core
        for at in range(0, len(texts.records), BATCH):
            rows = enumerate(texts.records[at : at + BATCH], at)
            bodies = [canon.encode(MemoryPut(f"k/{n}", text)) for n, text in rows]
            with core.store.transaction():
                drafts = [Draft("memory.put", "claude@hub", (), body) for body in bodies]
                core.append_all(FLEET, drafts)
                core._sign()
            core._released()
        self.longest_s = 0.0
        self._step = self._hub.step

    def _timed(self, *events: Any) -> None:
        start = time.process_time()
        self._step(*events)
        self.longest_s = max(self.longest_s, time.process_time() - start)

    def ask(self, words: list[str]) -> list[dict[str, Any]]:
        answer = self._hub.call("recall", {"words": words})
        assert answer["ok"], answer
        found: list[dict[str, Any]] = answer["value"]
        return found

    def anew(self) -> float:
        """Processor seconds until a question is answered after the index was deleted."""
        self._index.unlink(missing_ok=True)
        self.longest_s = 0.0
        start = time.process_time()
        self._hub.step = self._timed  # type: ignore[method-assign]
        self.ask(["anything"])
        self._hub.step = self._step  # type: ignore[method-assign]
        return time.process_time() - start

    def close(self) -> None:
        self._hub.core.store.close()


def asked(ask: _Call, questions: list[list[str]]) -> list[float]:
    """Processor milliseconds of each question."""
    times = []
    for each in questions:
        start = time.process_time()
        ask(each)
        now = time.process_time()
        # Here and there reading this clock takes more than a millisecond.
        times.append((now - start - (time.process_time() - now)) * 1000)
    return times


def measured(folder: Path, *, records: int, questions: int) -> list[Figure]:
    texts = Texts(records)
    raw, world = Raw(folder, texts), World(folder, texts)
    world.anew()
    anew_s, longest_s = world.anew(), world.longest_s
    asked(world.ask, texts.questions(50))
    ours, theirs = list[float](), list[float]()
    for _ in range(5):
        some = texts.questions(questions // 5)
        theirs += asked(raw.ask, some)
        ours += asked(world.ask, some)
    known = texts.known(questions)
    met = sum(any(f"k/{n}" == each["name"] for each in world.ask(words)) for n, words in known)
    world.close()
    said = f"ours p50 {p50(ours):.2f} p99 {p99(ours):.1f} ms; any word p50 {p50(theirs):.2f} "
    said += f"p99 {p99(theirs):.1f} ms; {records:,} records"
    rate = f"ours {records / anew_s:,.0f}/s out of the log; FTS5 {records / raw.seconds:,.0f}/s"
    return [
        Figure("recall of 8 words p50", p50(ours), 5, said, unit="ms"),
        Figure("recall of 8 words p99", p99(ours), 15, said, unit="ms"),
        Figure("recall of 8 words p50 / FTS5 any word", p50(ours) / p50(theirs), 1.0, said),
        Figure("a known record is among the first 10", met / len(known), 0.95, "", upper=False),
        Figure("the index made anew", anew_s, 10, rate, unit="s"),
        Figure("the index made anew / FTS5 alone", anew_s / raw.seconds, 6.0, rate),
        Figure("the longest step while it is made", longest_s * 1000, 50, "CPU", unit="ms"),
    ]


async def _told(here: Caller, there: Caller, *, count: int) -> list[float]:
    """Milliseconds from telling one daemon to finding it at the other."""
    times = []
    for _ in range(count):
        word = f"w{secrets.token_hex(6)}"
        args = {"key": f"bench/{word}", "text": [f"the word is {word}"]}
        call = here.ordered("remember", str(args["key"]), args)
        ask = there.prepare("recall", {"words": [word]})
        await asyncio.sleep(GAP_S)
        start = time.perf_counter()
        await here.begin(call)
        while not await there.begin(ask):
            pass
        times.append((time.perf_counter() - start) * 1000)
        # Whoever wrote it is never behind.
        assert await here.begin(here.prepare("recall", {"words": [word]}))
    return times


async def between(count: int) -> list[Figure]:
    with Fleet(2) as fleet:
        here = await fleet.caller()
        there = await Caller.connect(fleet, 1)
        await _told(here, there, count=20)
        times = await _told(here, there, count=count)
        here.close()
        there.close()
    said = f"p50 {p50(times):.1f} p99 {p99(times):.1f} ms, {count} writes"
    return [
        Figure("told here, found there, p50", p50(times), 25, said, unit="ms"),
        Figure("told here, found there, p99", p99(times), 150, said, unit="ms"),
    ]


async def run(*, short: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"records": 20_000 if short else 100_000, "questions": 200 if short else 1_000}
        found = await asyncio.to_thread(measured, Path(folder), **sizes)
    return [*found, *await between(50 if short else 300)]
