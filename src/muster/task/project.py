"""What the files of a project say of it: its languages, the tools it needs, how it is tested.

Rule 1: files are read and nothing of them is run. They come from whoever wrote the repository: a
        file that is no TOML or JSON says nothing, and that is told.
Rule 2: no text of a file gets into an answer, but versions that are ranges and names that are
        plain; so an answer can be put into shell source and into a comment.

A task runner (make, just, task) that has a target for the tests counts before what a language's
own files say: whoever wrote it meant it for this question.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.task.language import LANGUAGES, READ, RUNNERS, Files, Tests

# The folders of a project that are looked into, and those of others that lie in it.
DEPTH_MAX: Final = 3
_FOREIGN: Final = re.compile(
    r"(?:^|/)(?:\.[^/]*|node_modules|vendor|third_party|target|build|dist|out|__pycache__|venv)/"
)
# What may stand in shell source without quotes.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")


class Part(NamedTuple):
    """A folder that is a project of its own; "" is the whole. `doubts` are what was not clear."""

    folder: str
    languages: tuple[str, ...]
    tools: dict[str, str]
    tests: Tests | None
    doubts: tuple[str, ...]


def wanted(path: str) -> bool:
    """Whether the text of this file counts."""
    return path.rpartition("/")[2] in READ and _looked_at(path)


def is_own(folder: str) -> bool:
    """Whether a folder (its name ends in /) is of the project, not written by others or built."""
    return not _FOREIGN.search(folder)


def parts(files: Files) -> list[Part]:
    """The parts of a project, its whole first; a folder without any sign of one is none."""
    folders: dict[str, dict[str, str]] = {}
    for path, text in files.items():
        if _looked_at(path):
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, {})[name] = text
            # Tests are often in a folder of their own.
            above, _, here = folder.rpartition("/")
            if here in _TEST_FOLDERS and _FILE_OF_TESTS.search(name):
                folders.setdefault(above, {}).setdefault(f"{here}/", name)
    found = (_part(folder, folders[folder]) for folder in sorted(folders))
    return [part for part in found if part is not None]


def how_tested(found: Iterable[Part], within: str = "") -> tuple[str, list[str]]:
    """How the project is tested, "" where that is not known, and why so.

    The innermost part that holds the folder `within` says it; where the whole says nothing, all
    others together.
    """
    tested = [part for part in found if part.tests is not None]
    innermost = part_of(tested, within)
    chosen = [innermost] if innermost else tested[:_TOGETHER_MAX]
    commands, why = [], []
    for part in chosen:
        command, because = part.tests or Tests("", "")
        commands.append(f"(cd {part.folder} && {command})" if part.folder else command)
        why.append(f"{part.folder}/{because}" if part.folder else because)
    return "\n".join(commands), why


def part_of(found: Iterable[Part], within: str = "") -> Part | None:
    """The innermost part that holds the folder `within`."""
    around = [p for p in found if not p.folder or f"{within}/".startswith(f"{p.folder}/")]
    return around[-1] if around else None


def groups(found: Iterable[Part]) -> str:
    """A pattern of folders that are alike, for `each`: `services/*/`; `*/` where none are."""
    count: dict[str, set[str]] = {}
    for part in found:
        above, _, name = part.folder.rpartition("/")
        if above:
            count.setdefault(above, set()).add(name)
    several = [above for above, names in count.items() if len(names) > 1]
    return f"{min(several, key=lambda each: (-len(count[each]), each))}/*/" if several else "*/"


# More commands than these are no longer one check.
_TOGETHER_MAX: Final = 8
_TEST_FOLDERS: Final = ("tests", "test", "spec")
_FILE_OF_TESTS: Final = re.compile(r"^(?:test_.*\.py|.*_test\.py|.*_spec\.rb|.*_test\.rb)$")


def _looked_at(path: str) -> bool:
    folder = path.rpartition("/")[0]
    return (
        path.count("/") <= DEPTH_MAX
        and is_own(path)
        and (not folder or _PLAIN.fullmatch(folder) is not None)
    )


def _part(folder: str, files: Files) -> Part | None:
    languages = [found for read in LANGUAGES if (found := read(files)) is not None]
    runner = next((found for read in RUNNERS if (found := read(files)) is not None), None)
    if not languages and runner is None:
        return None
    tests, tools = next((each.tests for each in languages if each.tests), None), dict[str, str]()
    for each in reversed(languages):
        tools |= each.tools
    if runner is not None:
        tests, tools = runner.tests, {**tools, **runner.tools}
    names = tuple(each.name for each in languages)
    return Part(folder, names, tools, tests, tuple(each.doubt for each in languages if each.doubt))
