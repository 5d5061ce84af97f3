"""A question in words as the full-text index is asked: rare words find, all words rank.

Rule 1: words are data. Each is quoted, so that no operator, star or column name of SQLite's is
understood in what somebody typed.
Rule 2: what a question costs is bounded by how many records its rarest words are in, however common
the others are: those only order what the rare ones found.
"""

from collections.abc import Callable, Iterable
from typing import Final

# Records that the rarest words may have together. Measured over 100,000: with these two a known
# record is among the first ten 99 times of 100; at twice as many 100 times, for half as much again.
RARE_RECORDS_MAX: Final = 1_000
# Records that all words which rank may have together: FTS5 counts each of them anew for `bm25`, and
# what many have tells next to nothing.
RANKED_RECORDS_MAX: Final = 5_000
# Different words of a question that are looked up, and those of them that are asked.
WORDS_LOOKED_MAX: Final = 64
WORDS_ASKED_MAX: Final = 24
# What a question in a whole sentence has, and what it is about in nobody's sentence.
_STOP: Final = """
a about all an and any are as at be been but by can could d did do does doing down for from had
has have he her him his how i if in into is it its just ll m me more my no not of on only or our
out over own re s same she should so some such t than that the their them then there these they
this those to too up ve very was we were what when where which who why will with would you your
"""
STOP_WORDS: Final = frozenset(_STOP.split())

# A word as it was typed, and the stem under which it is found.
Word = tuple[str, str]


def telling(words: Iterable[Word]) -> list[Word]:
    """The words that tell what is asked for, each once; all, where there are no others."""
    once = {stem: (word, stem) for word, stem in reversed(list(words))}
    every = list(reversed(once.values()))
    told = [each for each in every if each[0].casefold() not in STOP_WORDS]
    return (told or every)[:WORDS_LOOKED_MAX]


def match(words: Iterable[Word], records: Callable[[str], int]) -> str:
    """The question as FTS5 takes it; "" where no record has any of the words.

    `records` says how many have a stem.
    """
    counted = sorted((count, word) for word, stem in words if (count := records(stem)))
    rare, asked = _within(counted, RARE_RECORDS_MAX), _within(counted, RANKED_RECORDS_MAX)
    if len(rare) == len(asked):
        return _any(asked)
    return f"({_any(rare)}) AND ({_any(asked)})"


def _within(counted: list[tuple[int, str]], records: int) -> list[str]:
    """The rarest words, which so many records have together; one at least, if there is one."""
    found = list[str]()
    for count, word in counted[:WORDS_ASKED_MAX]:
        records -= count
        if found and records < 0:
            break
        found.append(word)
    return found


def phrase(text: str) -> str:
    """These words in a row, and nothing of them an operator."""
    return '"{}"'.format(text.replace('"', '""').replace("\0", " "))


def _any(words: Iterable[str]) -> str:
    return " OR ".join(map(phrase, words))
