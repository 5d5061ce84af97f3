"""Paths, patterns, switches and systems as a spec writes them, each with its sentence where it is none."""

import pytest
from tests.promise import proves

from muster.task.units import glob_refusal, path_refusal, switch_refusal, system_refusal

# A path, and words of why it is none inside a repository; "" for one that is.
PATHS = [
    ("a/b.txt", ""), ("a/b/", ""), ("Grüße/世界.md", ""), ("...a", ""), (".github/x", ""),
    ("a b", ""), ("x" * 200, ""), ("ü" * 127, ""), ("", "a plain path"), ("a//b", "a plain path"),
    ("./a", "a plain path"), ("a/../b", "a plain path"), ("..", "a plain path"),
    ("/etc", "relative to the repository"), ("~/x", "relative to the repository"),
    ("C:/x", "relative to the repository"), ("c:x", "relative to the repository"),
    ("-rf", "begin with a dash"), ("a\\b", "must not contain"), ("ab:c/d", "must not contain"),
    ("a\x00", "control characters"), ("a\nb", "control characters"), ("a*", "must not contain"),
    ("a.", "a dot or a space"), ("a /b", "a dot or a space"), (".git/hooks", "lie in .git"),
    ("a/.GIT", "lie in .git"), (".git ", "lie in .git"), ("GIT~1/x", "lie in .git"),
    (".git..", "lie in .git"), ("x" * 201, "at most 200 characters"), ("a\ud800", "UTF-8"),
    ("ü" * 128, "at most 255 bytes between two slashes"), ("a/" + "ü" * 128, "at most 255 bytes"),
]  # fmt: skip


@proves("spec.inside-repository")
@pytest.mark.parametrize("refusal", [path_refusal, glob_refusal])
def test_a_path_lies_inside_a_repository_on_every_system_or_is_refused_in_words(refusal):
    for path, words in PATHS:
        if refusal is glob_refusal and "*" in path:
            continue
        said = refusal(path)
        assert words in said, path
        assert bool(said) == bool(words), path


@proves("spec.inside-repository")
def test_a_pattern_of_paths_has_stars_where_a_path_has_letters_and_leads_out_of_nothing_either():
    for pattern in ("*", "**", "a/**/b", "**/x", "a/**", "*.py", "a?b", "a/*/b*", "?"):
        assert glob_refusal(pattern) == "", pattern
    for pattern in ("../*", "/**", "~/*", "a//*", ".git/*", "-*", "a\\*"):
        assert glob_refusal(pattern), pattern


def test_what_means_on_or_off_elsewhere_is_told_how_it_is_written_here():
    for text in ("on", "off"):
        assert switch_refusal(text) == ""
    told = {"true": "on", "Yes": "on", "1": "on", "enforced": "on", "OFF": "off", "no": "off"}
    for text, meant in told.items():
        assert switch_refusal(text) == f"is not on or off; write {meant}"
    assert switch_refusal("maybe") == switch_refusal("") == "is not on or off"
    for name in ("linux", "macos", "darwin", "windows"):
        assert system_refusal(name) == ""
    for name in ("Linux", "win32", ""):
        assert system_refusal(name) == "is not linux, macos, darwin or windows"
