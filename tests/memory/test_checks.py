"""The table of docs/spec/memory.md that says which test proves what names tests that there are."""

import re
from pathlib import Path

from tests.promise import proves

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "spec" / "memory.md"


@proves("tidy.docs-links-resolve")
def test_every_test_that_the_page_names_is_there():
    _, _, table = PAGE.read_text(encoding="utf-8").partition("## 9. What proves it")
    named = set(re.findall(r"`(test_\w+)`", table))
    assert len(named) > 60
    there = set[str]()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there.update(re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8")))
    assert named - there == set()
    files = re.findall(r"\b((?:bench|tests)/[\w/]+\.py)", table)
    assert [each for each in files if not (ROOT / each).exists()] == []
    # Thirteen checks, each with what proves it.
    assert len(re.findall(r"(?m)^\| \d+\. [^|]+\| [^|]+\|$", table)) == 13
