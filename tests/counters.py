"""What would notice that a counter no longer counts: each line that counts is taken away in turn.

    python -m tests.counters --sample 10    # ten lines by lot (`--seed` for the same ones again)
    python -m tests.counters --all          # every one: some minutes
    python -m tests.counters --only forks   # those of these names

Rule 1: a test counts for a name when it is a function of a test file, in this process, that asserts
        something of the name (`asserting`).
Rule 2: the package is a copy; nothing of the source is touched.
Rule 3: the tests pass on the whole copy first, and fail without the line. A line that nobody misses
        is printed, and ends this with 1.
Rule 4: lines that no test shares are taken away together, for a test fails by its own alone.
"""

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from muster.node.core import Core

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "muster"
_RUN_S_MAX = 3_600
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_COUNTS = re.compile(r"[Cc]ount(er)?s|grows\(")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@contextmanager
def grows(core: Core, name: str, by: int = 1) -> Iterator[None]:
    """What is done within makes a counter grow by exactly so much."""
    before = core.counters[name]
    yield
    assert core.counters[name] == before + by, f"{name} grew by {core.counters[name] - before}"


class Counting(NamedTuple):
    """A statement that counts: where it stands, and the name it gives, without a label."""

    path: Path
    line: int
    end: int
    name: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(SOURCE)}:{self.line} {self.name}"


def name_of(key: ast.expr) -> str:
    """The name that a subscript counts, as it is written; it ends in "-" where a label follows."""
    match key:
        case ast.Constant(value=str(text)):
            return text
        case ast.Call(func=ast.Name(id="labelled"), args=[ast.Constant(value=text), *_]):
            return f"{text}-"
    return ast.unparse(key)


def counting(path: Path) -> Iterator[Counting]:
    """The statements of a module that count."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)) if "counters[" in text else ():
        match node:
            case ast.AugAssign(target=ast.Subscript(value=counts, slice=key)) if ast.unparse(
                counts
            ).endswith("counters"):
                yield Counting(path, node.lineno, node.end_lineno or node.lineno, name_of(key))


def everything() -> list[Counting]:
    return [each for path in sorted(SOURCE.rglob("*.py")) for each in counting(path)]


def _said(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The words in what a function asserts, is given, or waits for: `until` and `grows` fail where
    it never comes.
    """
    asserted: list[ast.AST] = [*function.decorator_list]
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            asserted.append(node.test)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("until", "grows"):
            asserted += node.args
    for each in asserted:
        for node in ast.walk(each):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@cache
def _functions() -> tuple[tuple[str, bool, frozenset[str]], ...]:
    """Each test that is no end-to-end one: its name, whether it speaks of counters, what it says."""
    names = "|".join(sorted({re.escape(each.name) for each in everything()}))
    named, found = re.compile(f"[\"'](?:{names})"), []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "e2e" in path.parts or not (named.search(text) and _COUNTS.search(text)):
            continue
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, _FUNCTIONS) and node.name.startswith("test_"):
                whole = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                id = f"{path.relative_to(ROOT)}::{node.name}"
                found.append((id, bool(_COUNTS.search(whole)), frozenset(_said(node))))
    return tuple(found)


def asserting(name: str) -> list[str]:
    """The tests that assert something of a counter, as pytest names them."""
    return [
        id
        for id, counts, said in _functions()
        # A plain word may be anything: it counts where counters are spoken of.
        if (counts or "-" in name)
        and (name in said or (name.endswith("-") and any(each.startswith(name) for each in said)))
    ]


def _failed(package: Path, tests: Iterable[str]) -> set[str]:
    """Those of these tests that fail with that package, whatever they were given."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider",
         *sorted(tests)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(package)}, capture_output=True,
        timeout=_RUN_S_MAX, check=False, text=True,
    )  # fmt: skip
    if run.returncode not in (0, 1):
        raise RuntimeError(f"the tests did not run: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    return {each.partition("[")[0] for each in _FAILED.findall(run.stdout)}


@contextmanager
def _without(package: Path, gone: Iterable[Counting]) -> Iterator[None]:
    """These statements are taken away in that package meanwhile."""
    whole: dict[Path, str] = {}
    for each in sorted(gone, reverse=True):
        place = package / "muster" / each.path.relative_to(SOURCE)
        text = place.read_text(encoding="utf-8")
        whole.setdefault(place, text)
        lines = text.splitlines(keepends=True)
        first = lines[each.line - 1]
        # Longer than the line was, so that nothing compiled before is taken for it.
        lost = first[: len(first) - len(first.lstrip())] + "pass  # " + "taken away " * 20 + "\n"
        place.write_text("".join([*lines[: each.line - 1], lost, *lines[each.end :]]), "utf-8")
    yield
    for place, text in whole.items():
        place.write_text(text, encoding="utf-8")


def rounds(chosen: Iterable[Counting]) -> list[dict[Counting, set[str]]]:
    """Statements with their tests; in one round no two share a test, so each answers for itself."""
    found: list[dict[Counting, set[str]]] = []
    for each in chosen:
        tests = set(asserting(each.name))
        free = (held for held in found if not tests & set().union(*held.values()))
        place = next(free, None)
        if place is None:
            found.append(place := {})
        place[each] = tests
    return found


def prove(chosen: list[Counting]) -> int:
    """Take each away, print what came of it; how many nobody missed."""
    unmissed = 0
    with tempfile.TemporaryDirectory(prefix="counters-") as folder:
        package = Path(folder)
        shutil.copytree(SOURCE, package / "muster", ignore=shutil.ignore_patterns("__pycache__"))
        every = {test for each in chosen for test in asserting(each.name)}
        broken = _failed(package, every)
        for test in sorted(broken):
            print(f"it fails though nothing is taken away: {test}")
        for held in rounds(chosen):
            with _without(package, held):
                failed = _failed(package, set().union(*held.values())) - broken
            for each, tests in held.items():
                unmissed += not (tests & failed)
                said = "missed" if tests & failed else "NOT MISSED"
                print(f"{said:10}  {each}  by {len(tests & failed)} of {len(tests)}", flush=True)
    print(f"{len(chosen) - unmissed} of {len(chosen)} lines that count are missed by a test")
    return unmissed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.counters", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every line that counts")
    parser.add_argument("--sample", type=int, default=10, help="so many by lot")
    parser.add_argument("--seed", type=int, default=None, help="the lot; another one each time")
    parser.add_argument("--only", nargs="+", default=[], help="those of these names, as declared")
    asked = parser.parse_args()
    chosen = everything()
    if asked.only:
        names = {name.partition("<")[0] for name in asked.only}
        chosen = [each for each in chosen if each.name in names]
    elif not asked.all:
        seed = asked.seed if asked.seed is not None else random.randrange(10**6)
        print(f"--seed {seed}")
        chosen = random.Random(seed).sample(chosen, min(asked.sample, len(chosen)))
    return 1 if prove(chosen) or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
