"""What a contributor, a packager and a reader of the site rely on is there, and whole."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.promise import proves

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "AGENTS.md", "SECURITY.md", "VERSIONING.md"]
# Per cent; where pyproject.toml raises its floor, this one rises with it.
COVERAGE_MIN = 95


def _yaml(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _pages(nav) -> list[str]:
    """Every page of a navigation, whatever section it is in."""
    if isinstance(nav, str):
        return [nav]
    return [
        page for each in (nav.values() if isinstance(nav, dict) else nav) for page in _pages(each)
    ]


@proves("tidy.site-is-whole")
def test_every_document_is_a_page_of_the_site_and_every_page_a_document():
    docs = ROOT / "docs"
    there = {str(p.relative_to(docs)) for p in docs.rglob("*.md") if p.parent.name != "adr"}
    assert set(_pages(_yaml(ROOT / "mkdocs.yml")["nav"])) == there


@proves("tidy.site-is-whole")
def test_the_site_is_built_without_a_complaint(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "verbs" / "index.html").exists()


@proves("tidy.changes-are-assembled")
def test_every_fragment_stands_in_the_next_changelog():
    run = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "next"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    shown = "".join(run.stdout.split())
    fragments = [p for p in (ROOT / "changes").iterdir() if p.suffix == ".md"]
    missing = [p.name for p in fragments if "".join(p.read_text("utf-8").split()) not in shown]
    assert fragments
    assert missing == []


@proves("tidy.package-is-whole")
def test_the_wheel_has_the_table_the_catalogue_the_schema_and_the_type_marker(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run = subprocess.run(
        [*build, "--wheel-dir", tmp_path, ROOT], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(p.relative_to(ROOT / "src"))
        for p in (ROOT / "src" / "muster").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert sources - names == set()
    assert {"muster/py.typed", "muster/verbs/table.json"} <= names


@proves("tidy.package-is-whole")
def test_the_package_says_what_it_is_and_for_which_pythons():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"authors", "keywords", "classifiers", "license"} <= project.keys()
    workflow = _yaml(ROOT / ".github" / "workflows" / "ci.yml")
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if " :: 3." in c]
    assert named == pythons


@proves("tidy.coverage-rises")
def test_what_the_pure_layers_own_tests_reach_is_checked_and_its_floor_may_only_rise():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    layers = {"log", "fleet", "task", "message", "memory", "context"}
    assert set(settings["run"]["source"]) == {f"muster.{name}" for name in layers}
    assert settings["run"]["branch"]
    assert settings["report"]["fail_under"] >= COVERAGE_MIN
    assert re.search(r"^make .*\bcoverage\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


@proves("tidy.contributors-are-told")
@pytest.mark.parametrize("name", PAGES)
def test_a_page_for_whoever_comes_is_at_the_root(name):
    assert len((ROOT / name).read_text(encoding="utf-8")) > 400


@proves("tidy.contributors-are-told")
def test_the_form_for_a_mistake_asks_for_the_diagnosis():
    form = _yaml(ROOT / ".github" / "ISSUE_TEMPLATE" / "mistake.yml")
    (asked,) = [each for each in form["body"] if each["id"] == "doctor"]
    assert asked["attributes"]["label"] == "muster doctor --json"
    assert asked["validations"]["required"]
