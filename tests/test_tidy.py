"""The house rules that no linter knows. The numbers are ratchets: they may go down, never up."""

import ast
import importlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import append, audit

from muster.verbs.table import VERBS
from tests.promise import proves

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "muster"
BANNED_NAMES = {
    "utils",
    "util",
    "helpers",
    "helper",
    "manager",
    "common",
    "core_utils",
    "misc",
    "v2",
}
FILE_LINES_MAX = 1000
MERGED = {".json", ".md", ".py", ".toml"}
FILES_OVER_400_MAX = 8
FUNCTION_LINES_MAX = 70
# What a person or another program starts; nobody imports it.
DOORS = {"__main__", "main", "shim", "git_hook", "git_remote", "mcp_stdio", "ssh_serve"}


def _python(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@proves("tidy.files-stay-small")
def test_no_file_outgrows_its_reader():
    everything = [p for d in ("src", "tests", "bench", "verify", "demo") for p in _python(ROOT / d)]
    assert [str(p) for p in everything if _lines(p) > FILE_LINES_MAX] == []
    large = [str(p) for p in _python(SOURCE) if _lines(p) > 400]
    assert len(large) <= FILES_OVER_400_MAX, large


@proves("tidy.nothing-half-merged")
def test_no_file_holds_two_versions_of_itself():
    folders = ("src", "tests", "bench", "verify", "demo", "docs", "changes", "tools")
    files = [p for d in folders for p in (ROOT / d).rglob("*") if p.suffix in MERGED]
    mark = re.compile(rb"^(?:<{7}|>{7}) ", re.MULTILINE)
    both = [
        str(p) for p in (*files, *ROOT.glob("*.*")) if p.is_file() and mark.search(p.read_bytes())
    ]
    assert both == [], "a rebase left its marks"


@proves("tidy.the-verifier-can-be-read")
def test_the_stand_alone_verifier_fits_on_400_lines():
    assert _lines(ROOT / "verify" / "muster_verify.py") <= 400


@proves("tidy.functions-stay-short")
def test_no_function_outgrows_a_screen():
    long = []
    for path in _python(SOURCE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > FUNCTION_LINES_MAX:
                    long.append(f"{path.name}:{node.name} {size}")
    assert long == []


@proves("tidy.names-are-nouns")
def test_no_file_is_a_drawer():
    assert [str(p) for p in _python(ROOT / "src") if p.stem in BANNED_NAMES] == []


@proves("tidy.no-dead-files")
def test_every_module_is_used_by_another():
    text = {p: p.read_text(encoding="utf-8") for p in (*_python(SOURCE), *_python(ROOT / "tools"))}
    dead = []
    imported = {
        path: {
            f"{node.module}.{each.name}"
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.ImportFrom)
            for each in node.names
        }
        for path, source in text.items()
    }
    # Handlers stand in the table, and what shows their answers is found by the same name.
    nouns = {verb.handler.partition(":")[0].rpartition(".")[2] for verb in VERBS.values()}
    for path in text:
        if path.stem in DOORS | {"__init__", *nouns} or ROOT / "tools" in path.parents:
            continue
        module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        named = re.compile(rf"\b{re.escape(module)}\b")
        others = [p for p in text if p != path]
        if not any(
            module in imported[p] or (module in text[p] and named.search(text[p])) for p in others
        ):
            dead.append(module)
    assert dead == []


@proves("tidy.errors-are-not-swallowed")
def test_only_the_supervisor_catches_everything():
    broad = []
    for path in _python(SOURCE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = ast.unparse(node.type) if node.type else "everything"
            if re.search(r"\b(Exception|BaseException|everything)\b", names):
                broad.append(str(path.relative_to(SOURCE)))
    assert set(broad) <= {"node/supervisor.py"}, broad


@proves("tidy.nothing-of-a-machine-is-committed")
def test_no_registry_host_or_machine_path_is_committed():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    hosts = ("pypi" + ".org", "python" + "hosted", "registry." + "npmjs", "deb." + "debian")
    found = []
    for name in files.stdout.split():
        path = ROOT / name
        if not path.is_file() or path.suffix in {".png", ".bin"}:
            continue
        content = path.read_text(encoding="utf-8", errors="replace")
        if any(h in content for h in hosts) or re.search(
            r"(?<![\w.])/(work|farm|root)/\w", content
        ):
            found.append(name)
    assert found == []


@proves("tidy.tests-measure-no-time")
def test_no_test_asserts_how_long_something_took():
    """A machine under load makes it fail: tests/work.py counts work, a wait has a timeout."""
    timed = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in _python(ROOT / "tests")
        if path.name.startswith("test_")
        for line in _timed(path.read_text(encoding="utf-8"))
    ]
    assert timed == []


@proves("tidy.tests-measure-no-time")
@pytest.mark.parametrize(
    "text",
    [
        "assert time.monotonic() - began < 1",
        "assert 1 > time.monotonic() - began",
        "took = time.perf_counter() - began\nassert took < 1",
        "took = time.perf_counter() - began\nassert 0 < took",
        "took = [process_time() - began]\nassert max(took) < 1",
    ],
)
def test_an_assert_of_how_long_something_took_is_found(text: str) -> None:
    assert _timed(f"def test_x():\n    {text.replace(chr(10), chr(10) + ' ' * 4)}\n")


def _timed(text: str) -> list[int]:
    """The lines that compare what was read from a clock, or a name that such a difference got."""
    clocks = re.compile(r"perf_counter|process_time|thread_time|monotonic|timeit")
    found = []
    tree = ast.parse(text)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes = list(ast.walk(function))
        took = {
            target.id
            for node in nodes
            if isinstance(node, ast.Assign) and _is_difference(node.value, clocks)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in nodes:
            if isinstance(node, ast.Assert):
                names = {each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)}
                if names & took or _is_difference(node.test, clocks):
                    found.append(node.lineno)
    return found


def _is_difference(node: ast.AST, clocks: re.Pattern[str]) -> bool:
    return any(
        isinstance(each, ast.BinOp)
        and isinstance(each.op, ast.Sub)
        and clocks.search(ast.unparse(each))
        for each in ast.walk(node)
    )


@proves("tidy.layers-hold")
def test_the_import_contracts_are_kept():
    import sys

    run = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-500:]


@proves("tidy.bench-is-alive")
@pytest.mark.parametrize("path", sorted((ROOT / "bench").glob("*.py")), ids=lambda p: p.stem)
def test_every_figure_can_be_measured(path: Path) -> None:
    """What only people start is broken for weeks before somebody sees it."""
    importlib.import_module(f"bench.{path.stem}")


@proves("tidy.bench-is-alive")
@pytest.mark.parametrize(
    "once",
    [
        lambda: audit.seconds_per_million(200, 10),
        lambda: append._rates(("raw", "append", "folded"), 1),
    ],
    ids=["audit", "append"],
)
def test_what_needs_no_daemon_is_measured(once: Callable[[], Any]) -> None:
    assert once()
