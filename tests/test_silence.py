"""No error is lost in silence: whoever catches one raises, hands it on, counts it, answers, or says why.

Rule 1: an `except` raises, uses its error, counts, or answers: it returns a value, or gives the
        value to the name that the `try` was to give one.
Rule 2: `suppress` answers where the `return` of its body is followed by another one.
Rule 3: a shape of SHAPES explains itself. Whatever else says why, in a sentence of its own: a
        comment directly above it, behind it, or before its first statement.

    with suppress(OSError):
        # What cannot be removed now goes with the next sweep.
        path.unlink()
"""

import ast
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.promise import proves

SOURCE = Path(__file__).parent.parent / "src" / "muster"
# What other programs read in a comment explains nothing to a person.
_DIRECTIVE = re.compile(r"#\s*(noqa|type:|pragma|fmt:|ruff:|mypy:)")
_SENTENCE = re.compile(r"[A-Z0-9`\"'(].*[.:]")
_WORDS_MIN = 4

Catch = ast.ExceptHandler | ast.stmt
_WITHS = (ast.With, ast.AsyncWith)
_SIMPLE = (ast.Assign, ast.AnnAssign, ast.Expr, ast.Return)


def _own(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    """What is run with these statements: not what they only define."""
    waiting: list[ast.AST] = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _called(node: ast.AST) -> str:
    """The last name of what is called, `await`ed or not; nothing where it is no call."""
    node = node.value if isinstance(node, ast.Expr | ast.Await) else node
    node = node.value if isinstance(node, ast.Await) else node
    return ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""


def _waits_bounded(body: list[ast.stmt]) -> bool:
    """A wait for an end or a bell, and for nothing else, with a bound."""
    match body:
        case [ast.AsyncWith(items=[ast.withitem(context_expr=ast.Call() as bound)], body=[wait])]:
            return _called(bound) == "timeout" and _called(wait) == "wait"
        case [ast.Expr(value=ast.Await(value=ast.Call(args=[ast.Call() as wait, _])))]:
            return _called(body[0]) == "wait_for" and _called(wait) == "wait"
    return False


def _only_calls(*names: str) -> Callable[[list[ast.stmt]], bool]:
    return lambda body: len(body) == 1 and _called(body[0]) in names


def _reads_or_writes_once(body: list[ast.stmt]) -> bool:
    """One call that the kernel answers with "not now"; who waits for its readiness is called again."""
    calls = [each for stmt in body for each in ast.walk(stmt) if isinstance(each, ast.Call)]
    names = {_called(each) for each in calls} - {"len"}
    return len(names) == 1 and names < {"read", "write", "recv", "recv_fds", "send", "accept"}


# The errors that such a body may pass over without a word, because their name says it all.
SHAPES: dict[frozenset[str], Callable[[list[ast.stmt]], bool]] = {
    frozenset({"TimeoutError"}): _waits_bounded,
    frozenset({"FileNotFoundError"}): _only_calls("unlink", "rmdir", "remove"),
    frozenset({"FileExistsError"}): _only_calls("mkdir"),
    frozenset({"ProcessLookupError"}): _only_calls("kill", "killpg", "terminate", "send_signal"),
    frozenset({"BlockingIOError"}): _reads_or_writes_once,
}


def _explains_itself(errors: list[ast.expr], body: list[ast.stmt]) -> bool:
    names = frozenset(ast.unparse(each).rpartition(".")[2] for each in errors)
    return names in SHAPES and SHAPES[names](body)


def _bound(nodes: list[ast.stmt]) -> set[str]:
    return {
        each.id
        for each in _own(nodes)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }


def _handles(handler: ast.ExceptHandler, tried: list[ast.stmt]) -> bool:
    """Whether it raises, uses the error, counts it or answers."""
    for node in _own(handler.body):
        match node:
            case ast.Raise() | ast.Return(value=ast.expr()):
                return True
            case ast.Name(id=name, ctx=ast.Load()) if name == handler.name:
                return True
            case ast.AugAssign(target=ast.Subscript(value=counts)):
                if ast.unparse(counts).endswith("counters"):
                    return True
    match handler.body:
        case [ast.Assign(targets=[target])]:
            given = _bound([ast.Assign([target], ast.Constant(None))])
            return bool(given) and given <= _bound(tried)
    return False


def _suppressed(node: ast.AST) -> list[ast.expr]:
    """The errors that a `with` passes over, or that a simple statement makes a `suppress` of."""
    if isinstance(node, _WITHS):
        calls: Iterable[ast.AST] = [each.context_expr for each in node.items]
    else:
        calls = ast.walk(node) if isinstance(node, _SIMPLE) else ()
    return [
        error
        for each in calls
        if isinstance(each, ast.Call) and _called(each) == "suppress"
        for error in each.args
    ]


def _is_answer(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Raise) or (isinstance(node, ast.Return) and node.value is not None)


def _blocks(block: list[ast.stmt]) -> Iterator[list[ast.stmt]]:
    """These statements, and each block in them."""
    yield block
    for each in block:
        inner = [getattr(each, field, ()) for field in ("body", "orelse", "finalbody")]
        inner += [
            deeper.body for field in ("handlers", "cases") for deeper in getattr(each, field, ())
        ]
        for deeper in inner:
            if deeper:
                yield from _blocks(deeper)


def _silent(tree: ast.Module) -> Iterator[Catch]:
    """Whatever catches an error, and neither handles it nor has a shape that explains itself."""
    for block in _blocks(tree.body):
        for each, after in itertools.zip_longest(block, block[1:]):
            if errors := _suppressed(each):
                body = getattr(each, "body", [])
                answers = len(body) == 1 and _is_answer(body[0]) and _is_answer(after)
                if not (answers or _explains_itself(errors, body)):
                    yield each
            for handler in each.handlers if isinstance(each, ast.Try | ast.TryStar) else ():
                named = handler.type
                errors = named.elts if isinstance(named, ast.Tuple) else [named] if named else []
                if not (_handles(handler, each.body) or _explains_itself(errors, each.body)):
                    yield handler


def _sentence(lines: list[str]) -> bool:
    """Whether these comments are a sentence for people."""
    said = " ".join(each.lstrip("# ") for each in lines if not _DIRECTIVE.match(each))
    return bool(_SENTENCE.fullmatch(said)) and len(said.split()) >= _WORDS_MIN


def _is_said(node: Catch, lines: list[str]) -> bool:
    """Whether a sentence stands directly above it, behind it or before its first statement."""
    own = [each.strip() for each in lines]
    first, at = getattr(node, "body", [node])[0].lineno, node.lineno - 1
    above = list(itertools.takewhile(lambda each: each.startswith("#"), reversed(own[:at])))
    inside = [each for each in own[at:first] if each.startswith("#")]
    behind = [f"#{each.partition('  #')[2]}" for each in (own[at], own[first - 1])]
    return any(_sentence(each) for each in (above[::-1], inside, *([one] for one in behind)))


def unsaid(text: str) -> list[int]:
    """The lines of a module on which an error is lost without a word."""
    if "except" not in text and "suppress" not in text:
        return []
    lines = text.splitlines()
    return sorted(node.lineno for node in _silent(ast.parse(text)) if not _is_said(node, lines))


@proves("tidy.no-error-is-lost")
def test_every_error_that_is_caught_is_handled_or_explained() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line in unsaid(path.read_text(encoding="utf-8"))
    ]
    assert found == [], "raise it, hand it on, count it, answer, or say why in a sentence"


_SAID = "# A file that went meanwhile tells nothing."


@proves("tidy.no-error-is-lost")
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        # What handles an error.
        ("try:\n    f()\nexcept OSError:\n    raise Broken from None", []),
        ("try:\n    f()\nexcept OSError as e:\n    why.append(e)", []),
        ("try:\n    f()\nexcept OSError as e:\n    why = e", []),
        ("try:\n    f()\nexcept OSError as e:\n    why.append(1)", [3]),
        ("try:\n    f()\nexcept OSError:\n    core.counters['lost'] += 1", []),
        ("try:\n    f()\nexcept OSError:\n    core.lost += 1", [3]),
        ("def g():\n    try:\n        f()\n    except OSError:\n        return None", []),
        ("def g():\n    try:\n        f()\n    except OSError:\n        return", [4]),
        ("try:\n    a = f()\nexcept OSError:\n    a = 0", []),
        ("try:\n    a = f()\nexcept OSError:\n    b = 0", [3]),
        ("try:\n    a = f()\nexcept OSError:\n    a = 0\n    g()", [3]),
        ("try:\n    f()\nexcept OSError:\n    pass", [3]),
        ("try:\n    f()\nexcept OSError:\n    def g():\n        raise ValueError", [3]),
        ("try:\n    f()\nexcept (A, B):\n    pass\nexcept C as e:\n    raise", [3]),
        ("def g():\n    with suppress(OSError):\n        return f()\n    return None", []),
        ("def g():\n    with suppress(OSError):\n        return f()\n    return", [2]),
        ("def g():\n    with suppress(OSError):\n        h()\n        return f()\n    return 0", [2]),
        ("with suppress(OSError), open(a) as b:\n    f(b)", [1]),
        ("with (\n    open(a) as b,\n    contextlib.suppress(OSError),\n):\n    f(b)", [1]),
        ("with open(a) as b:\n    f(b)", []),
        ("quiet = contextlib.suppress(OSError)", [1]),
        ("stack.enter_context(suppress(OSError))", [1]),
        (f"{_SAID}\nquiet = contextlib.suppress(OSError)", []),
        # What explains it.
        (f"try:\n    f()\nexcept OSError:\n    {_SAID}\n    pass", []),
        (f"try:\n    f()\n{_SAID}\nexcept OSError:\n    pass", []),
        (f"try:\n    f()\nexcept OSError:  {_SAID}\n    pass", []),
        (f"try:\n    f()\nexcept OSError:\n    pass  {_SAID}", []),
        (f"{_SAID}\ntry:\n    f()\nexcept OSError:\n    pass", [4]),
        (f"try:\n    f()\nexcept OSError:\n    g()\n    {_SAID}\n    h()", [3]),
        (f"{_SAID}\nwith suppress(OSError):\n    f()", []),
        (f"with suppress(OSError):\n    {_SAID}\n    f()", []),
        (f"with suppress(OSError):\n    f()\n    {_SAID}\n    g()", [1]),
        (f"{_SAID}\n\nwith suppress(OSError):\n    f()", [3]),
        (f"g()  {_SAID}\nwith suppress(OSError):\n    f()", [2]),
        ("# A file that went\n# meanwhile tells nothing.\nwith suppress(OSError):\n    f()", []),
        # What is no sentence.
        ("# ignore errors\nwith suppress(OSError):\n    f()", [2]),
        ("# Best effort.\nwith suppress(OSError):\n    f()", [2]),
        ("with suppress(OSError):  # noqa: SIM105 - It is shorter so.\n    f()", [1]),
        # The shapes, and what is just not one.
        ("with suppress(TimeoutError):\n    await asyncio.wait_for(bell.wait(), 3)", []),
        ("with suppress(TimeoutError):\n    await asyncio.wait_for(read(), 3)", [1]),
        (
            "with suppress(TimeoutError):\n    async with timeout(3):\n        await bell.wait()",
            [],
        ),
        (
            "with suppress(TimeoutError):\n    async with timeout(3):\n        await b.wait()\n        f()",
            [1],
        ),
        ("with suppress(TimeoutError, OSError):\n    await asyncio.wait_for(b.wait(), 3)", [1]),
        ("with suppress(FileNotFoundError):\n    os.unlink(path)", []),
        ("try:\n    await files.remove(path)\nexcept FileNotFoundError:\n    pass", []),
        ("with suppress(OSError):\n    os.unlink(path)", [1]),
        ("with suppress(FileNotFoundError):\n    path.read_bytes()", [1]),
        ("with suppress(FileNotFoundError):\n    os.unlink(a)\n    os.unlink(b)", [1]),
        ("with suppress(FileExistsError):\n    os.mkdir(path)", []),
        ("with suppress(ProcessLookupError):\n    os.killpg(pid, SIGTERM)", []),
        ("with suppress(ProcessLookupError, PermissionError):\n    os.kill(pid, 9)", [1]),
        ("try:\n    data = os.read(0, 9)\nexcept BlockingIOError:\n    pass", []),
        ("try:\n    data = work(os.read(0, 9))\nexcept BlockingIOError:\n    pass", [3]),
    ],
)  # fmt: skip
def test_what_is_lost_without_a_word_is_found(text: str, lines: list[int]) -> None:
    assert unsaid(text) == lines


@proves("tidy.no-error-is-lost")
def test_without_any_one_of_its_comments_a_module_is_refused() -> None:
    """Of a real one: each comment that explains is needed where it stands."""
    text = (SOURCE / "node" / "folders" / "disk.py").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    said = {each.lineno for each in _silent(ast.parse(text))}
    assert len(said) > 5
    for line in said:
        at = next(n for n in (line - 1, line + 1) if lines[n - 1].lstrip().startswith("#"))
        assert unsaid("".join(lines[: at - 1] + lines[at:])) != [], f"disk.py:{at} explains nothing"
