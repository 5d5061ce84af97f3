"""Promises and tests agree, both ways; read from the sources, so that one file run alone says the same."""

import ast
from pathlib import Path

from tests.promise import proves
from tests.requirements import PROMISES

TESTS = Path(__file__).parent


def _claims() -> dict[str, list[str]]:
    """Promise id -> the tests that claim to prove it."""
    claims: dict[str, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "proves":
                    for arg in mark.args:
                        assert isinstance(arg, ast.Constant), f"{file}: {node.name}"
                        claims.setdefault(str(arg.value), []).append(f"{file.name}::{node.name}")
    return claims


@proves("tidy.promises-are-proved")
def test_every_promise_has_a_test_and_every_test_a_known_promise():
    claims = _claims()
    assert sorted(set(PROMISES) - set(claims)) == [], "promises without a test"
    unknown = {p: t for p, t in claims.items() if p not in PROMISES}
    assert unknown == {}, "tests of unknown promises"


@proves("tidy.promises-are-sentences")
def test_a_promise_is_a_sentence_of_its_own():
    assert [p for p, text in PROMISES.items() if not text.endswith(".") or len(text) < 20] == []
    assert len(set(PROMISES.values())) == len(PROMISES)
