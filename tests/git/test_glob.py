"""What an `each:` glob matches."""

import pytest
from tests.promise import proves
from tests.work import calls

from muster.git.glob import matching

FILES = ["a.py", "src/a.py", "src/b.md", "src/x/c.py", "src/x/y/d.py", "tests/e.py", ".hidden/f.py"]


@proves("node.globs")
@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("*.py", ("a.py",)),
        ("src/*", ("src/a.py", "src/b.md")),
        ("src/*/", ("src/x",)),
        ("*/", (".hidden", "src", "tests")),
        ("**/*.py", (".hidden/f.py", "a.py", "src/a.py", "src/x/c.py", "src/x/y/d.py", "tests/e.py")),
        ("src/**", ("src/a.py", "src/b.md", "src/x/c.py", "src/x/y/d.py")),
        ("src/**/", ("src", "src/x", "src/x/y")),
        ("src/?.py", ("src/a.py",)),
        ("src/[ab].*", ("src/a.py", "src/b.md")),
        ("nothing/*", ()),
        ("SRC/*", ()),
    ],
)  # fmt: skip
def test_a_glob_stays_within_names_and_two_stars_cross_folders(glob, found):
    assert matching(FILES, glob) == found


@proves("node.globs")
def test_the_order_of_files_does_not_matter():
    assert matching(reversed(FILES), "**/") == matching(FILES, "**/")


@proves("node.globs")
@pytest.mark.parametrize(
    ("glob", "fits"), [("**/" * 60 + "b", False), ("**/a/" * 29 + "**/a", True)]
)
def test_many_crossings_over_a_deep_folder_take_no_more_than_parts_times_parts(glob, fits):
    deep, found = "/".join(["a"] * 100), []
    most = 2 * (1 + deep.count("/")) * (1 + glob.count("/")) ** 2
    assert calls(lambda: found.extend(matching([deep], glob))) < most
    assert found == [deep] * fits
