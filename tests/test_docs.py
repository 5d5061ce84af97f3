"""Documents and code agree: what is there is described, and what is described is there."""

import ast
import re
from pathlib import Path

import pytest

from muster.task.check import check
from muster.verbs.table import VERBS
from tests.promise import proves
from tests.requirements import PROMISES

ROOT = Path(__file__).parent.parent
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))
CODE = ("src", "tests", "bench", "tools", "verify", "demo")
ADR_SECTIONS = ["Status", "Context", "Decision", "Options", "Consequences"]
# A page, as printed: what is longer is no longer read.
ARCHITECTURE_LINES_MAX = 90
README_LINES_MAX = 120


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _prose(path: Path) -> str:
    """A document without its code."""
    blocks = re.sub(r"^```.*?^```$", "", _text(path), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^ {4}.*$", "", blocks, flags=re.MULTILINE))


def _commands() -> list[tuple[str, str]]:
    """What the pages for users type, as verb and the rest of the line without its comment."""
    shown = r"^ {4}muster ([a-z-]+)([^#\n]*)"
    return [found for page in GUIDES for found in re.findall(shown, _text(page), re.MULTILINE)]


def _anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


def _words() -> list[str]:
    """The words the glossary explains, as they stand in its tables."""
    cells = re.findall(r"^\| ([^|]+) \|", _text(ROOT / "docs" / "GLOSSARY.md"), flags=re.MULTILINE)
    return [w for cell in cells if cell != "word" for w in cell.split(", ")]


@proves("tidy.docs-name-every-verb")
def test_every_verb_for_people_is_in_the_readme():
    readme = _text(ROOT / "README.md")
    shown = [v.name for v in VERBS.values() if not v.hidden]
    assert [name for name in shown if f"`{name}`" not in readme] == []


@proves("tidy.docs-name-every-verb")
def test_the_guide_shows_no_command_that_is_not_there():
    verbs = {verb for verb, _ in _commands()}
    assert len(verbs) > 10, "the guide shows commands"
    assert sorted(v for v in verbs if v not in VERBS or VERBS[v].hidden) == []


@proves("tidy.docs-name-every-verb")
def test_the_guide_shows_only_options_that_a_verb_takes():
    unknown = []
    for name, rest in _commands():
        known = {f"--{arg.name}" for arg in VERBS[name].args}
        known |= {"--json", "--on", "--home", "--output", "--no-pager"}
        known |= {"--plan"} if VERBS[name].auth in ("order", "agent") else set()
        known |= {"--yes"} if VERBS[name].destroys else set()
        known |= {"--watch"} if VERBS[name].watches else set()
        unknown += [f"{name} {o}" for o in re.findall(r"--[a-z-]+[a-z]", rest) if o not in known]
    assert unknown == []


@proves("tidy.docs-show-sound-specs")
@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_spec_that_a_document_shows_is_sound(path):
    blocks = re.findall(r"^```yaml\n(.*?)^```$", _text(path), flags=re.MULTILINE | re.DOTALL)
    reports = [check(block.encode(), None) for block in blocks if block.startswith("muster: ")]
    assert [p.sentence for report in reports for p in report.problems if not p.warning] == []


@proves("tidy.docs-name-every-area")
def test_every_area_of_promises_is_on_their_page():
    areas = {promise.partition(".")[0] for promise in PROMISES}
    page = _text(ROOT / "docs" / "guide" / "promises.md")
    assert sorted(a for a in areas if f"| `{a}` |" not in page) == []


@proves("tidy.docs-links-resolve")
@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_to_something(path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(path)):
        if re.match(r"[a-z]+://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            broken.append(target)
    assert broken == []


@proves("tidy.docs-links-resolve")
def test_every_document_and_decision_that_the_source_names_is_there():
    missing = []
    decisions = {int(p.name[:4]) for p in ADRS}
    for source in sorted((ROOT / "src").rglob("*.py")):
        text = _text(source)
        named = re.findall(r"\bdocs/[\w/-]+\.md\b", text)
        missing += [n for n in named if not (ROOT / n).exists()]
        cited = re.findall(r"\bADR[- ](\d+)\b", text)
        missing += [f"{source.name}: ADR {n}" for n in cited if int(n) not in decisions]
    assert missing == []


@proves("tidy.docs-links-resolve")
def test_every_file_of_code_that_a_page_or_the_source_names_is_there():
    """A decision speaks of the files of its day."""
    code = [f"/{p.relative_to(ROOT)}" for top in CODE for p in (ROOT / top).rglob("*.py")]
    pages = [p for p in DOCS if p not in ADRS and p.name != "CHANGELOG.md"]
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in (*pages, *sorted((ROOT / "src").rglob("*.py")))
        for name in re.findall(r"\w[\w/.]*\.py\b", _text(page))
        if not any(each.endswith(f"/{name}") for each in code)
    ]
    assert missing == []


@proves("tidy.docs-decisions-are-whole")
@pytest.mark.parametrize("path", ADRS, ids=lambda p: p.name)
def test_a_decision_has_status_context_options_and_consequences(path):
    text = _text(path)
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == ADR_SECTIONS
    assert text.startswith(f"# {int(path.name[:4])}. ")
    parts = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    assert [s for s, part in zip(ADR_SECTIONS, parts, strict=True) if len(part.strip()) < 15] == []


@proves("tidy.docs-decisions-are-whole")
def test_decisions_are_numbered_without_gaps():
    assert [int(p.name[:4]) for p in ADRS] == list(range(1, len(ADRS) + 1))


@proves("tidy.docs-decisions-are-whole")
def test_a_decision_names_only_sources_that_are_there():
    missing = []
    for path in ADRS:
        named = re.findall(r"`((?:\w+/)+\w+\.(?:py|md|toml))`", _text(path))
        places = {n: (ROOT / n, ROOT / "src" / "muster" / n) for n in named}
        missing += [
            f"{path.name}: {n}" for n, at in places.items() if not any(p.exists() for p in at)
        ]
    assert missing == []


@proves("tidy.docs-one-word-for-one-thing")
def test_every_word_of_the_glossary_is_explained_once():
    words = _words()
    assert len(words) > 50
    assert sorted({w for w in words if words.count(w) > 1}) == []


@proves("tidy.docs-one-word-for-one-thing")
def test_every_word_of_the_glossary_is_used_in_the_code():
    code = "\n".join(_text(p).lower() for p in (ROOT / "src").rglob("*.py"))
    assert [w for w in _words() if not re.search(rf"\b{re.escape(w)}", code)] == []


@proves("tidy.docs-readme-is-short")
def test_the_readme_is_for_a_stranger_and_short():
    assert len(_text(ROOT / "README.md").splitlines()) <= README_LINES_MAX


@proves("tidy.docs-architecture-is-a-page")
def test_the_architecture_is_one_page_and_names_every_layer():
    text = _text(ROOT / "docs" / "ARCHITECTURE.md")
    assert len(text.splitlines()) <= ARCHITECTURE_LINES_MAX
    folders = [p.parent.name for p in (ROOT / "src" / "muster").glob("*/__init__.py")]
    assert [f for f in folders if f"`{f}/`" not in text] == []


@proves("tidy.docs-dependencies-are-decided")
def test_every_library_has_its_line_in_the_decision_about_dependencies():
    decision = _text(ROOT / "docs" / "adr" / "0002-dependencies.md")
    project = _text(ROOT / "pyproject.toml")
    listed = re.search(r"^dependencies = (\[.*?^\])", project, flags=re.MULTILINE | re.DOTALL)
    assert listed is not None
    names = [re.split(r"[>=<; ]", d)[0] for d in ast.literal_eval(listed.group(1))]
    assert [n for n in names if f"| {n} |" not in decision] == []


@proves("tidy.docs-name-no-registry")
def test_no_document_names_a_registry_or_a_path_of_one_machine():
    hosts = ("pypi" + ".org", "python" + "hosted", "npmjs" + ".", "crates" + ".io", "proxy.golang")
    paths = re.compile(r"(?<![\w.~])/(?:work|farm|root|home/[a-z]+)/\w")
    found = [str(p) for p in DOCS if any(h in _text(p) for h in hosts) or paths.search(_text(p))]
    assert found == []


@proves("tidy.docs-readme-is-short")
def test_the_first_run_answers_what_its_spec_asks_a_person_before_it_lands():
    first = _text(ROOT / "README.md").partition("## The first run")[2].partition("\n## ")[0]
    order = ["muster run tidy", "muster decide tidy/approve yes", "muster land tidy"]
    at = [first.find(f"    {typed}") for typed in order]
    assert -1 not in at
    assert at == sorted(at)
    template = _text(ROOT / "src" / "muster" / "templates" / "change.yaml")
    assert "  approve:" in template, "the phase that it names"
    assert "muster diff <name> --phase change" in template, "what a person is to look at"
