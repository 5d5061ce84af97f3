"""What a text takes at most, held against what two families of models really take for it."""

import random
from collections.abc import Callable
from typing import Final

import pytest
from tests.promise import proves

from muster.memory.tokens import tokens_of

LOWER, UPPER, DIGITS = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
Make = Callable[[random.Random], str]


def of(alphabet: str, count: int) -> Make:
    return lambda draw: "".join(draw.choices(alphabet, k=count))


def between(first: int, last: int) -> Make:
    return of("".join(map(chr, range(first, last))), 300)


def words(longest: int) -> Make:
    return lambda draw: " ".join(
        "".join(draw.choices(LOWER, k=draw.randint(1, longest))) for _ in range(150)
    )


def text(of_it: str) -> Make:
    return lambda _draw: of_it


# What a text is made of, and what it took with o200k_base and cl100k_base (gpt-tokenizer 4.0.0).
SAMPLES: Final[dict[str, tuple[Make, int, int]]] = {
    "prose": (
        text("The tests are in tests/; run them with make test after a clone. " * 8),
        129,
        129,
    ),
    "german": (
        text("Der Verknüpfer braucht für Ärzte die Option ohne Optimierung. " * 8),
        113,
        145,
    ),
    "russian": (text("сборка требует флага без оптимизации времени компоновки " * 8), 98, 185),
    "code": (text("if (x[i] != y->z) { return foo(bar, baz[0]); }\n" * 10), 200, 200),
    "log": (
        text("src/app/main.py:214: error: Name 'x' is not defined [name-defined]\n" * 8),
        160,
        160,
    ),
    "json": (text('{"a": [1, 23, 4567, 891011], "b": "c d", "e": null}, ' * 8), 233, 233),
    "base64": (of(LOWER + UPPER + DIGITS + "+/", 600), 407, 426),
    "hex": (of(DIGITS + "abcdef", 600), 349, 350),
    "digits": (of(DIGITS, 600), 200, 200),
    "letters": (of(LOWER, 600), 311, 332),
    "capitals": (of(UPPER, 600), 342, 357),
    "camel": (of(LOWER + UPPER, 600), 357, 384),
    "gibberish": (words(6), 308, 320),
    "marks": (of("!@#$%^&*()_+{}|:<>?~`-=[];,./\"'\\", 500), 324, 326),
    "blanks": (text(" a  b   c    d\t\t\n\n" * 20), 160, 160),
    "emoji": (between(0x1F600, 0x1F640), 559, 600),
    "chinese": (between(0x4E00, 0x9FA0), 573, 693),
    "hangul": (between(0xAC00, 0xD7A0), 670, 775),
    "kana": (between(0x3041, 0x3090), 330, 415),
    "ethiopic": (between(0x1200, 0x1248), 600, 897),
    "arabic": (between(0x621, 0x64A), 292, 370),
    "hebrew": (between(0x5D0, 0x5EA), 215, 429),
    "greek": (between(0x3B1, 0x3C9), 250, 338),
    "accents": (between(0xC0, 0x24F), 489, 544),
    "deseret": (between(0x10400, 0x1044F), 1200, 1197),
}


def drawn(name: str) -> str:
    return SAMPLES[name][0](random.Random(name))


@proves("memory.digest-has-a-budget")
@pytest.mark.parametrize("name", SAMPLES)
def test_no_kind_of_text_takes_much_more_than_is_counted(name):
    _, newer, older = SAMPLES[name]
    assert newer
    assert tokens_of(drawn(name)) >= newer
    # The older table is the dearer one; models that have it are few by now.
    assert tokens_of(drawn(name)) >= 0.85 * older


@proves("memory.digest-has-a-budget")
@pytest.mark.parametrize("name", ["prose", "german", "code", "log"])
def test_ordinary_texts_are_not_counted_as_if_they_were_the_worst(name):
    assert tokens_of(drawn(name)) <= 2.6 * SAMPLES[name][1]
