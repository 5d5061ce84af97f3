"""The print of a text: equal for texts that say the same with other case, blanks and edges.

What is refuted stays refuted under whatever key it comes back, also when a dot or something that
nobody sees was added on the way. It is no defence against other words: what a text means, no print
can tell.
"""

import unicodedata
from hashlib import sha256
from typing import Final

from muster.printable import seen

PRINT_BYTES: Final = 16
# Punctuation, symbols of lists and quotes: by category, for every script has its own.
_EDGES: Final = frozenset({"Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sk", "So"})


def text_print(text: str) -> bytes:
    """The first bytes of the SHA-256 of what is seen of `text`, in NFKC, case-folded, in single
    blanks. Whoever changes what it is gives the fold that writes it another version.

    Unicode promises that neither changes for a character once it is assigned (UAX 15, section 3).
    Of a character that only a newer Python knows, another one may make another print: what is
    refuted there is then not known again here, and no more.
    """
    # What is unseen keeps letters and marks apart; another form of it is so, too.
    plain = seen(unicodedata.normalize("NFKC", seen(text)).casefold())
    words = " ".join(plain.split())
    # Folding the case may make what is to be composed once more.
    return sha256(unicodedata.normalize("NFKC", _core(words)).encode()).digest()[:PRINT_BYTES]


def _core(words: str) -> str:
    """Without the punctuation at both ends; a text of nothing else is itself."""
    start, end = 0, len(words)
    while start < end and _is_edge(words[start]):
        start += 1
    while end > start and _is_edge(words[end - 1]):
        end -= 1
    return words[start:end] or words


def _is_edge(char: str) -> bool:
    return char == " " or unicodedata.category(char) in _EDGES
