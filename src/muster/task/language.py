"""What the files of one folder say: in which languages it is, and how it is tested.

Rule 1: to know another language or task runner is another function here, and its line at the end.
Rule 2: no text of a file gets into an answer, but versions that are ranges of ours.
Rule 3: a command is what a person would type in a fresh clone: where the tests need what others
        wrote, it is installed first, from the lock file where there is one.
"""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from muster.errors import Malformed
from muster.limits import RANGE_CHARS_MAX
from muster.task.version import check_range

Files = Mapping[str, str]
"""Names of files, with the text of those that are `READ`, and "" for the others."""


class Tests(NamedTuple):
    """How tests are run, and the file that says so."""

    command: str
    because: str


class Language(NamedTuple):
    """A language of a folder: the tools it needs with their versions, and how it is tested."""

    name: str
    tools: dict[str, str]
    tests: Tests | None
    doubt: str = ""


# --- task runners


def _make(files: Files) -> Language | None:
    for name in ("GNUmakefile", "makefile", "Makefile"):
        for target in ("test", "tests", "check"):
            if re.search(rf"^{target}[ \t]*:(?!=)", files.get(name, ""), re.MULTILINE):
                tests = Tests(f"make {target}", f"{name} has a target {target}")
                return Language("", {"make": "*"}, tests)
    return None


def _just(files: Files) -> Language | None:
    for name in ("justfile", "Justfile", ".justfile"):
        if re.search(r"^@?test(?:[ \t][^:\n]*)?:(?!=)", files.get(name, ""), re.MULTILINE):
            return Language("", {"just": "*"}, Tests("just test", f"{name} has a recipe test"))
    return None


def _task(files: Files) -> Language | None:
    for name in ("Taskfile.yml", "Taskfile.yaml"):
        text = files.get(name, "").partition("\ntasks:")[2]
        if re.search(r"^ {1,8}test:", text, re.MULTILINE):
            return Language("", {"task": "*"}, Tests("task test", f"{name} has a task test"))
    return None


# --- languages


def _python(files: Files) -> Language | None:
    there = {name.removesuffix(_PY) for name in files}
    if not there & {"pyproject.toml", "setup", "setup.cfg", "requirements.txt"}:
        return None
    project, doubt = _toml(files, "pyproject.toml")
    versions = _at(project, "project", "requires-python")
    versions = versions or _at(project, "tool", "poetry", "dependencies", "python")
    tools = {"python": _range(versions)}
    runs = [(lock, tool) for lock, tool in _PYTHON_LOCKS.items() if lock in files]
    lock, tool = runs[0] if runs else ("", "")
    before = f"{tool} run " if tool else ""
    if tool:
        tools[tool] = "*"
    tests = next(
        (Tests(before + run, f"there is {n}") for n, run in _PYTHON_SIGNS.items() if n in files),
        None,
    )
    texts = "".join(files.get(name, "") for name in (*_PYTHON_TEXTS, "pyproject.toml"))
    if "[tool.tox" in texts and tests is None:
        tests = Tests(f"{before}tox", "pyproject.toml has [tool.tox]")
    elif re.search(r"\bpytest\b", texts) and (tests is None or "manage" in tests.because):
        named = next(n for n in (*_PYTHON_TEXTS, "pyproject.toml") if "pytest" in files.get(n, ""))
        tests = Tests(f"{before}python3 -m pytest", f"{named} names pytest")
    elif tests is None and {"tests/", "test/"} & files.keys():
        folder = "tests" if "tests/" in files else "test"
        tests = Tests(f"{before}python3 -m unittest discover {folder}", f"{folder} has tests")
    if tests and tool:
        tests = Tests(tests.command.replace("run python3 -m ", "run "), tests.because)
        tests = Tests(tests.command, f"{tests.because}, and {lock} says {tool}")
    return Language("Python", tools, tests, doubt)


_PYTHON_LOCKS: Final = {"uv.lock": "uv", "poetry.lock": "poetry", "pdm.lock": "pdm"}
# Named apart, so that nobody looks for these files here.
_PY: Final = ".py"
_PYTHON_SIGNS: Final = {
    f"noxfile{_PY}": "nox",
    "tox.ini": "tox",
    "pytest.ini": "python3 -m pytest",
    f"conftest{_PY}": "python3 -m pytest",
    f"manage{_PY}": f"python3 manage{_PY} test",
}
_PYTHON_TEXTS: Final = (
    *("setup.cfg", f"setup{_PY}", "requirements-dev.txt", "requirements-test.txt"),
    *("requirements.txt", "requirements_dev.txt", "dev-requirements.txt"),
)


def _javascript(files: Files) -> Language | None:
    if "package.json" not in files:
        return None
    package, doubt = _json(files, "package.json")
    tools = {"node": _range(_at(package, "engines", "node"))}
    script = _at(package, "scripts", "test")
    manager = _at(package, "packageManager").partition("@")[0]
    locked = next((name for lock, name in _NODE_LOCKS.items() if lock in files), "")
    manager = manager if manager in _NODE_LOCKS.values() else locked or "npm"
    tools |= {} if manager == "bun" else {manager: "*"}
    if manager == "bun":
        tools = {"bun": "*"}
    tests = None
    # What `npm init` writes says that there are none.
    if script and "no test specified" not in script:
        installs = {
            "npm": "npm ci" if "package-lock.json" in files else "npm install",
            "pnpm": "pnpm install --frozen-lockfile" if locked else "pnpm install",
            "yarn": "yarn install --immutable" if ".yarnrc.yml" in files else "yarn install",
            "bun": "bun install --frozen-lockfile" if locked else "bun install",
        }
        run = "bun run test" if manager == "bun" else f"{manager} test"
        because = f"package.json has a script test, and its packages are {manager}'s"
        tests = Tests(f"{installs[manager]} && {run}", because)
    return Language("JavaScript", tools, tests, doubt)


_NODE_LOCKS: Final = {
    "pnpm-lock.yaml": "pnpm", "yarn.lock": "yarn", "bun.lock": "bun", "bun.lockb": "bun",
    "package-lock.json": "npm",
}  # fmt: skip


def _rust(files: Files) -> Language | None:
    if "Cargo.toml" not in files:
        return None
    cargo, doubt = _toml(files, "Cargo.toml")
    least = _at(cargo, "package", "rust-version")
    least = least or _at(cargo, "workspace", "package", "rust-version")
    tools = {"cargo": "*", **({"rustc": _range(f">={least}")} if least else {})}
    several = "workspace" in cargo
    tests = Tests(f"cargo test{' --workspace' * several}", "there is Cargo.toml")
    return Language("Rust", tools, tests, doubt)


def _go(files: Files) -> Language | None:
    if "go.mod" not in files:
        return None
    found = re.search(r"^go[ \t]+([0-9.]+)", files["go.mod"], re.MULTILINE)
    tools = {"go": _range(f">={found[1]}") if found else "*"}
    return Language("Go", tools, Tests("go test ./...", "there is go.mod"))


def _java(files: Files) -> Language | None:
    java = {"java": "*"}
    if "pom.xml" in files:
        named = r"<(?:maven\.compiler\.release|java\.version)>([0-9.]+)<"
        found = re.search(named, files["pom.xml"])
        java = {"java": _range(f">={found[1]}") if found else "*"}
        run = "sh ./mvnw" if "mvnw" in files else "mvn"
        tools = java if "mvnw" in files else {**java, "mvn": "*"}
        return Language("Java", tools, Tests(f"{run} -B test", "there is pom.xml"))
    for name in ("build.gradle.kts", "build.gradle", "settings.gradle.kts", "settings.gradle"):
        if name in files:
            run = "sh ./gradlew" if "gradlew" in files else "gradle"
            tools = java if "gradlew" in files else {**java, "gradle": "*"}
            return Language("Java", tools, Tests(f"{run} test", f"there is {name}"))
    return None


def _c(files: Files) -> Language | None:
    text = files.get("CMakeLists.txt")
    if text is None:
        return None
    text = text.lower()
    least = re.search(r"cmake_minimum_required\s{0,8}\(\s{0,8}version\s{1,8}([0-9.]+)", text)
    tools = {"cmake": _range(f">={least[1]}") if least else "*"}
    tests = None
    if re.search(r"(?:enable_testing|add_test)\s{0,8}\(|include\s{0,8}\(\s{0,8}ctest", text):
        command = "cmake -S . -B build && cmake --build build && "
        command += "ctest --test-dir build --output-on-failure"
        tests = Tests(command, "CMakeLists.txt has tests for ctest")
    return Language("C or C++", tools, tests)


def _ruby(files: Files) -> Language | None:
    if "Gemfile" not in files and "Rakefile" not in files:
        return None
    before = "bundle install && bundle exec " if "Gemfile" in files else ""
    tests = None
    if ".rspec" in files or "spec/" in files:
        tests = Tests(f"{before}rspec", "it has specs for rspec")
    elif re.search(r"TestTask|task\s{0,8}\(?:test|task test", files.get("Rakefile", "")):
        tests = Tests(f"{before}rake test", "Rakefile has a task test")
    return Language("Ruby", {"ruby": "*"}, tests)


def _php(files: Files) -> Language | None:
    if "composer.json" not in files:
        return None
    composer, doubt = _json(files, "composer.json")
    tests = None
    if isinstance(composer.get("scripts"), dict) and composer["scripts"].get("test"):
        tests = Tests("composer install && composer test", "composer.json has a script test")
    elif files.keys() & {"phpunit.xml", "phpunit.xml.dist"}:
        tests = Tests("composer install && vendor/bin/phpunit", "there is phpunit.xml")
    tools = {"php": _range(_at(composer, "require", "php")), "composer": "*"}
    return Language("PHP", tools, tests, doubt)


def _elixir(files: Files) -> Language | None:
    if "mix.exs" not in files:
        return None
    return Language("Elixir", {"mix": "*"}, Tests("mix deps.get && mix test", "there is mix.exs"))


def _dotnet(files: Files) -> Language | None:
    named = sorted(n for n in files if re.search(r"\.(?:slnx?|csproj|fsproj)$", n))
    if not named:
        return None
    kind = named[0].rpartition(".")[2]
    return Language(".NET", {"dotnet": "*"}, Tests("dotnet test", f"there is a .{kind} file"))


RUNNERS: Final[tuple[Callable[[Files], Language | None], ...]] = (_make, _just, _task)
LANGUAGES: Final[tuple[Callable[[Files], Language | None], ...]] = (
    _python, _javascript, _rust, _go, _java, _c, _ruby, _php, _elixir, _dotnet,
)  # fmt: skip
# The files whose text counts; of all others only that they are there.
READ: Final = frozenset({
    "GNUmakefile", "makefile", "Makefile", "justfile", "Justfile", ".justfile", "Taskfile.yml",
    "Taskfile.yaml", "pyproject.toml", *_PYTHON_TEXTS, "package.json", "Cargo.toml", "go.mod",
    "pom.xml", "CMakeLists.txt", "Rakefile", "composer.json",
})  # fmt: skip


# --- what a file says


def _toml(files: Files, name: str) -> tuple[dict[str, Any], str]:
    try:
        return tomllib.loads(files.get(name, "")), ""
    except (ValueError, RecursionError):
        return {}, f"{name} is no TOML that can be read"


def _json(files: Files, name: str) -> tuple[dict[str, Any], str]:
    try:
        found = json.loads(files.get(name, ""))
    except (ValueError, RecursionError):
        found = None
    return (found, "") if isinstance(found, dict) else ({}, f"{name} is no JSON that can be read")


def _at(tree: Any, *keys: str) -> str:
    """A text in a tree that others wrote, "" where there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, str) else ""


def _range(text: str) -> str:
    """What a project asks of a version, as a range of ours; * where it is none.

    A caret is npm's and Poetry's word for what does not break: up to the next first number.
    """
    if len(text) > RANGE_CHARS_MAX:
        return "*"
    caret = re.fullmatch(r"\^\s?([0-9]{1,6})((?:\.[0-9]{1,6}){0,2})", text.strip())
    if caret and int(caret[1]):
        return f">={caret[1]}{caret[2]},<{int(caret[1]) + 1}"
    joined = re.sub(r"\s+(?=[<>=!~])", ",", re.sub(r"([<>=!~,])\s+", r"\1", text.strip()))
    joined = "".join(joined.split())
    try:
        check_range(joined)
    except Malformed:
        return "*"
    return joined if joined not in {"", "x", "any"} else "*"
