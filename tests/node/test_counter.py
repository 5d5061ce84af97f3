"""One registry of what a machine counts: complete, without leftovers, and in the documents.

`python -m tests.node.test_counter` writes docs/spec/counters.md anew.
"""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from tests.counters import asserting, counting, everything
from tests.promise import proves

from muster.errors import Unreachable
from muster.node.counter import DECLARED, Counts, labelled

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "spec" / "counters.md"
HEAD = """\
# Counters

What a machine counts of itself since its daemon started. `muster status --json` has them under `counters`, those that are
not 0; `muster status --verbose` shows them to people. A name that ends in a label, as `call-<error>`, counts each label for
itself: `call-denied`, `call-malformed`. `<error>` is a kind of `muster.errors` in small letters.

This page is made of the declarations in the code (`muster/node/counter.py`); a test compares them.

| name | module | when it rises |
|---|---|---|
"""


def load() -> None:
    """Every module that declares a name: it does so when it is imported.

    No other one: some are programs, which do their work then, and one of those waits for its parent.
    """
    for path in sorted((ROOT / "src" / "muster").rglob("*.py")):
        if "DECLARED[__name__]" in path.read_text(encoding="utf-8"):
            import_module(".".join(path.relative_to(ROOT / "src").with_suffix("").parts))


def page() -> str:
    load()
    rows = sorted(
        (name, owner, help_) for owner, names in DECLARED.items() for name, help_ in names.items()
    )
    return HEAD + "".join(f"| `{n}` | `{o.removeprefix('muster.')}` | {h} |\n" for n, o, h in rows)


@proves("node.counters-are-declared")
def test_whatever_is_counted_is_declared_and_whatever_is_declared_is_counted():
    load()
    every = {name.partition("<")[0] for names in DECLARED.values() for name in names}
    assert len(every) > 40
    for path in sorted((ROOT / "src" / "muster").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        uses, own = {each.name for each in counting(path)}, DECLARED.get(module, {})
        assert uses - every == set(), f"{module} counts what nobody declared"
        assert {name.partition("<")[0] for name in own} - uses == set(), f"{module} never counts it"


@proves("node.counters-are-caused")
def test_each_counter_is_named_by_a_test_that_asserts_how_often_it_counted():
    every = everything()
    assert len(every) > 130
    assert [str(each) for each in every if not asserting(each.name)] == [], "cause it in a test"


@proves("node.counters-are-declared")
def test_no_two_declarations_can_mean_the_same_name():
    load()
    every = [name for names in DECLARED.values() for name in names]
    assert len(every) == len(set(every))
    labels = [name.partition("<")[0] for name in every if "<" in name]
    assert [
        (a, b) for a in labels for b in every if b.startswith(a) and not b.startswith(f"{a}<")
    ] == []


@proves("node.counters-are-declared")
def test_what_is_declared_nowhere_cannot_be_counted_or_asked_for():
    counts = Counts()
    counts[labelled("call", Unreachable("away"))] += 1
    assert counts == {"call-unreachable": 1}
    assert counts["call-denied"] == 0
    for name in ("calls", "call", "nothing", "", "disputes-x"):
        with pytest.raises(KeyError, match="nobody declared it"):
            counts[name] += 1
    assert counts == {"call-unreachable": 1}


@proves("node.counters-are-declared")
def test_the_page_of_counters_is_the_declarations():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.node.test_counter"
    helps = [help_ for names in DECLARED.values() for help_ in names.values()]
    assert [h for h in helps if not (h[0].isupper() and h.endswith(".") and len(h) <= 80)] == []


def test_the_command_that_writes_the_page_runs_no_program():
    """One that is imported may wait for its parent: at a terminal the command never ended."""
    asked = "import sys; from tests.node.test_counter import load; load(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = done.stdout.split()
    assert "muster.node.daemon" in imported
    assert [name for name in imported if name.endswith(("_script", "__main__"))] == ["__main__"]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
