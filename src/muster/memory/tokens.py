"""How many tokens a text takes at most, without any model's own table (pure).

Measured against the tables of two families (o200k, cl100k): what a text is made of decides. Prose
has four bytes and more in a token, letters in any order two, Base64 one and a half, and of a script
that a table hardly knows each byte is a token. So each kind of characters is counted by what its
worst text takes: nobody fills a prompt by writing what is dear.
"""

import re
from bisect import bisect_right
from typing import Final

# In hundredths of a token for each character.
_LETTER: Final = 58
_CAPITAL: Final = 64
_MIXED_CASE: Final = 66
_MIXED: Final = 75
# Digits come in threes.
_DIGITS_OF_TOKEN: Final = 3
_MARK: Final = 70
_WORD: Final = 100
_PIECES: Final = re.compile(r"[A-Za-z0-9]+|[^\x00-\x7f]+|[^\sA-Za-z0-9]+|\s+")
_BEFORE_NUMBER: Final = re.compile(r" (?=[0-9])")
# Of what is not ASCII by where it stands in Unicode: up to here, so much.
_RANGES: Final = (
    (0x0250, 165),  # Latin with marks
    (0x0530, 125),  # Greek and Cyrillic
    (0x0590, 185),
    (0x0600, 135),  # Hebrew
    (0x0700, 120),  # Arabic
    (0x2000, 300),  # scripts of which a table knows little
    (0x2E80, 250),  # signs
    (0xD7B0, 250),  # Chinese, Japanese and Korean
    (0x10000, 300),
    (0x1F000, 400),
    (0x110000, 275),  # emoji, mostly
)
_ENDS: Final = [end for end, _ in _RANGES]
_COSTS: Final = [cost for _, cost in _RANGES]


def tokens_of(text: str) -> int:
    """How many tokens this takes, or fewer."""
    # Before a number a blank is a token of its own.
    total = len(_BEFORE_NUMBER.findall(text)) * _WORD
    for piece in _PIECES.findall(text):
        if not piece.isascii():
            total += sum(map(_other, piece))
        elif piece.isalpha():
            cost = _LETTER if piece.islower() or piece.istitle() else _MIXED_CASE
            total += max(_WORD, len(piece) * (_CAPITAL if piece.isupper() else cost))
        elif piece.isdigit():
            total += -(-len(piece) // _DIGITS_OF_TOKEN) * _WORD
        elif piece.isalnum():
            total += max(2 * _WORD, len(piece) * _MIXED)
        elif piece.isspace():
            # Any other blank belongs to the word behind it.
            total += 0 if piece == " " else len(piece) * _WORD
        else:
            total += max(_WORD, len(piece) * _MARK)
    return -(-total // 100)


def _other(char: str) -> int:
    return _COSTS[bisect_right(_ENDS, ord(char))]
