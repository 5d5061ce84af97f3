"""`muster new` and `muster template`: what is found, what is written, and what is refused."""

import asyncio
import json
import os
import re
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from muster import limits
from muster.errors import Conflict, Malformed, MusterError, NotFound, Unreachable
from muster.git import tree
from muster.task import project
from muster.task.check import check
from muster.task.route import Fleet
from muster.task.spec import parse
from muster.verbs import new, template
from muster.verbs.project import Look, look, look_at
from tests.cli.world import everything_in, muster
from tests.git.repositories import checkout, sh
from tests.promise import proves
from tests.task.world import machine

FACTS = {"tools": {}, "repositories": ["main"], "agents": {"noop": "", "shell": "", "codex": "1"}}
STUDIO = {"name": "studio", "state": "up", "facts": FACTS}
GONE = {"name": "gone", "state": "revoked", "facts": {**FACTS, "agents": {"gemini": "1"}}}
NEW = {"name": "hub", "state": "here", "facts": None}


class Context:
    """A command in a fleet of these machines, or without a daemon."""

    on = ""

    def __init__(self, *machines, origins=None, commits=None, looked=None):
        self.machines, self.origins, self.commits = machines, origins or {}, commits or {}
        self.looked = looked

    def ask(self, verb, args, **how):
        if not self.machines:
            raise Unreachable("no daemon runs here: `muster up --detach`")
        match verb:
            case "machines":
                return list(self.machines)
            case "status":
                return {"name": "hub"}
            case "repo.origin":
                return {"origin": self.origins.get(args["name"], "")}
            case "repo.project":
                return {"parts": project.parts(self.looked), "folders": "*/"}
            case "check.base":
                if args["base"] in self.commits.get(args["repo"], ()):
                    return {"commit": args["base"]}
                raise NotFound("no such commit")
        raise AssertionError(verb)


def write(context, name="tidy", **asked):
    return new.new(context, new.New(name=name, **asked))


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = checkout(tmp_path / "api")
    (folder / "Makefile").write_text("test:\n\tx\n")
    monkeypatch.chdir(folder)
    return folder


# --- templates


@proves("scaffold.templates")
@pytest.mark.parametrize("name", template.names())
def test_a_template_says_everything_of_itself_and_is_a_spec_that_can_run(name):
    found = template.load(name)
    words = {
        "name": "x", "agent": "claude", "repo": "main", "folders": "*/", "machine": "studio",
        "test": "make test\nmake more", "needs": "{tools: {make: '*'}}",
    }  # fmt: skip
    assert sorted(words) == sorted(template.WORDS)
    raw = template.filled(found.text, words, []).encode()
    facts = {
        "agents": {"shell": "", "claude": ""},
        "tools": {"make": "4", "python": "3.12", "git": "2"},
    }
    both = [machine(name, name=name, **facts) for name in ("studio", "laptop")]
    report = check(raw, Fleet(both, frozenset({"main"})))
    assert [p.sentence for p in report.problems] == []
    spec = parse(raw)
    # What happens is told of every phase, in their order.
    assert list(found.steps) == list(spec.phases)
    assert found.inputs == (spec.inputs or {})
    assert found.repository == (spec.repo is not None)
    assert all(len(text) > 20 for text in (found.when, found.needs, *found.steps.values()))
    # It fits a line of the list.
    assert len(found.title) <= 57
    # Whoever reads it for the first time reads why, wherever a key comes for the first time.
    explained = dict.fromkeys(re.findall(r"^    ([a-z]+):", found.text, re.MULTILINE))
    for key in explained.keys() - {"after", "do", "by", "env"}:
        first = re.search(rf"^(.*)\n    {key}:", found.text, re.MULTILINE)
        assert first is not None
        assert first[1].strip().startswith("#") or key in ("retries", "check"), (
            name,
            key,
            first[1],
        )


@proves("scaffold.templates")
@pytest.mark.parametrize("name", template.names())
def test_without_anything_found_a_template_is_still_a_spec(name):
    words = {"name": "x", "agent": "claude", "repo": "main", "folders": "*/", "machine": "m",
             "test": new._UNTESTED}  # fmt: skip
    raw = template.filled(template.load(name).text, words, []).encode()
    assert [p.sentence for p in check(raw).problems] == []
    assert b"<" not in raw.replace(b"<<'TESTS'", b"").replace(b"2>&1", b"")
    assert b"needs: \n" not in raw
    assert not re.search(rb"# What the machine must have\.\n    (?!needs)", raw)


@proves("scaffold.templates")
def test_templates_are_listed_and_shown(tmp_path):
    listed = muster(tmp_path, "template", "list")
    assert all(name in listed.out for name in template.names())
    assert max(len(line) for line in listed.out.splitlines()) <= 80
    shown = muster(tmp_path, "template", "show", "race")
    assert shown.out == template.load("race").text
    wrong = muster(tmp_path, "template", "show", "rac")
    assert (wrong.code, 'did you mean "race"?' in wrong.err) == (5, True)
    there = muster(tmp_path, "complete", "--", "new", "x", "--template", "ra").out
    assert there.split("\t")[0] == "race"


# --- what is found


@proves("scaffold.new", "scaffold.new-asks-the-fleet")
def test_a_spec_is_written_with_what_was_found_and_why(here):
    said = write(Context(STUDIO, GONE, NEW, origins={"main": str(here)}))
    text = (here / "tidy.yaml").read_text()
    assert said.spec == text
    spec = parse(text.encode())
    assert (spec.name, spec.repo, spec.phases["change"].agents) == ("tidy", "main", ("codex",))
    assert spec.phases["change"].check == "make test\n"
    assert spec.phases["change"].needs.tools == {"make": "*"}
    assert said.missing == []
    for line in ("agent codex on studio", "repository main of the fleet, from here",
                 "tests: make test (Makefile has a target test)"):  # fmt: skip
        assert line in said.found
        assert f"#   {line}" in text
    assert check(text.encode()).problems == ()


@proves("scaffold.new-asks-the-fleet")
def test_the_repository_of_the_folder_is_known_by_its_origin_its_clone_or_its_commits(here):
    url = "https://example.org/api.git"
    first = sh(here, "rev-list", "--max-parents=0", "HEAD")
    assert write(Context(STUDIO, commits={"main": [first]}), "a").found[1] == (
        "repository main of the fleet, which has this folder's commits"
    )
    sh(here, "remote", "add", "origin", url)
    assert write(Context(STUDIO, origins={"main": url}), "b").found[1] == (
        "repository main of the fleet, which has the same origin"
    )
    sh(here, "remote", "set-url", "origin", "muster::hub/main")
    assert "which this folder is a clone of" in write(Context(STUDIO), "c").found[1]
    sh(here, "remote", "set-url", "origin", "muster::hub/other")
    assert write(Context(STUDIO), "d").missing == [
        "the fleet has no repository of this folder: muster repo add api ."
    ]


@proves("scaffold.new-asks-the-fleet")
def test_without_a_daemon_it_says_what_it_assumed(here):
    said = write(Context())
    assert parse(said.spec.encode()).phases["change"].agents == ("claude",)
    assert said.missing == [
        "the fleet was not asked: no daemon runs here: `muster up --detach`",
        "which agents there are is not known, claude stands for them",
        "the fleet has no repository of this folder: muster repo add api .",
    ]
    assert "no daemon runs here" in (here / "tidy.yaml").read_text()
    assert "this-machine" in write(Context(), "p", template="personal-data").spec


@proves("scaffold.new-asks-the-fleet")
def test_without_any_agent_or_with_another_one_it_says_how_one_gets_it(here):
    bare = {**STUDIO, "facts": {**FACTS, "agents": {"noop": "", "shell": ""}}}
    assert "no machine has an agent yet, claude stands for it" in write(Context(bare)).missing[0]
    said = write(Context(STUDIO), "other", agent="claude")
    assert "no machine has the agent claude" in said.missing[0]
    assert write(Context(STUDIO), "own", agent="codex").missing[0].startswith("the fleet has no")
    plain = write(Context(STUDIO), "plain", agent="shell")
    assert not [each for each in plain.missing if "no machine has the agent" in each]
    assert "`muster check else.yaml`" in write(Context(STUDIO), "named", to="else.yaml").spec
    two = {**STUDIO, "facts": {**FACTS, "agents": {"claude": "", "codex": ""}}}
    spec = parse(write(Context(two), "two").spec.encode())
    assert spec.phases["change"].agents == ("claude", "codex")


@proves("scaffold.new")
def test_a_repository_of_the_fleet_is_looked_at_where_it_is(here):
    context = Context(STUDIO, looked={"go.mod": "go 1.22\n"})
    spec = parse(write(context, repo="main").spec.encode())
    assert (spec.repo, spec.phases["change"].check) == ("main", "go test ./...\n")
    said = write(Context(), "away", repo="main")
    assert "what follows is of the folder you were in" in said.missing


@proves("scaffold.new")
def test_a_project_without_tests_gets_a_check_that_fails_until_somebody_writes_it(here):
    (here / "Makefile").unlink()
    said = write(Context(STUDIO))
    assert parse(said.spec.encode()).phases["change"].check.endswith("exit 1\n")
    assert (
        "no command that runs the tests was found: write it where `exit 1` stands" in said.missing
    )
    # Whatever asks for no tests misses none.
    assert not any(
        "tests" in each for each in write(Context(STUDIO), "s", template="swarm").missing
    )


@proves("scaffold.new")
def test_whoever_stands_in_a_part_of_the_project_gets_its_tests(here, monkeypatch):
    (here / "web").mkdir()
    (here / "web" / "package.json").write_text(json.dumps({"scripts": {"test": "x"}}))
    monkeypatch.chdir(here / "web")
    said = write(Context(STUDIO))
    assert parse(said.spec.encode()).phases["change"].check == (
        "(cd web && npm install && npm test)\n"
    )
    assert (here / "web" / "tidy.yaml").exists()


# --- what is read


@proves("scaffold.reads-little")
def test_a_folder_is_read_in_bounds_without_links_pipes_and_what_others_wrote(here, monkeypatch):
    (here / "Makefile").unlink()
    (here / "elsewhere").write_text("test:\n")
    os.symlink("elsewhere", here / "Makefile")
    os.mkfifo(here / "justfile")
    (here / "node_modules" / "x").mkdir(parents=True)
    (here / "node_modules" / "x" / "go.mod").write_text("go 1.22")
    os.symlink(here, here / "again")
    (here / "large").mkdir()
    (here / "large" / "Makefile").write_text("test:\n" + "#" * limits.PROJECT_FILE_BYTES_MAX)
    (here / "a" / "b" / "c" / "d").mkdir(parents=True)
    (here / "a" / "b" / "c" / "d" / "go.mod").write_text("go 1.22")
    (here / "locked").mkdir()
    assert look_at(here).parts == []
    (here / "zz").mkdir()
    (here / "zz" / "go.mod").write_text("go 1.22")
    assert [part.folder for part in look_at(here).parts] == ["zz"]
    with monkeypatch.context() as bound:
        bound.setattr(limits, "PROJECT_FILES_MAX", 3)
        assert look_at(here).parts == []
    (here / "aa").mkdir()
    (here / "aa" / "Makefile").write_text("test:\n")
    (here / "bb").mkdir()
    (here / "bb" / "Makefile").write_text("test:\n")
    # The link and the pipe count, too.
    monkeypatch.setattr(limits, "PROJECT_READ_MAX", 3)
    assert [part.folder for part in look_at(here).parts] == ["aa", "zz"]


@proves("scaffold.reads-little")
def test_the_files_of_a_repository_are_looked_at_once_and_beside_the_loop(monkeypatch):
    seen, parts = [], project.parts

    async def start_of(*_):
        return Path("repos/main.git"), "c" * 40

    async def texts(*_):
        return {"go.mod": "go 1.22"}

    def counted(files):
        seen.append(threading.current_thread())
        return parts(files)

    monkeypatch.setattr(tree, "texts", texts)
    monkeypatch.setattr(project, "parts", counted)
    daemon = SimpleNamespace(effects=SimpleNamespace(start_of=start_of))
    found = asyncio.run(look(daemon, None, Look("main")))
    assert [part.languages for part in found.parts] == [("Go",)]
    assert len(seen) == 1
    assert seen[0] is not threading.current_thread()


# --- what is refused


@proves("scaffold.new-refuses")
@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"name": "Tidy"}, Malformed),
        ({"name": "../tidy"}, Malformed),
        ({"name": "-x"}, Malformed),
        ({"name": "x" * 41}, Malformed),
        ({"template": "nothing"}, NotFound),
        ({"template": "../../secret"}, NotFound),
        ({"agent": "a: b"}, Malformed),
        ({"repo": "a\nb"}, Malformed),
        ({"repo": "main", "template": "research"}, Malformed),
        ({"to": "there.yaml"}, Conflict),
        ({"to": "Makefile"}, Conflict),
        ({"to": "dangling"}, Conflict),
        ({"to": "none/x.yaml"}, MusterError),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_changes(here, asked, error):
    (here / "there.yaml").write_text("mine")
    os.symlink("nowhere", here / "dangling")
    before = everything_in(here)
    with pytest.raises(error):
        write(Context(STUDIO), **asked)
    assert everything_in(here) == before
    assert sorted(os.listdir(here)) == sorted(
        [".git", "Makefile", "dangling", "readme.md", "there.yaml"]
    )


@proves("scaffold.new-refuses")
def test_a_file_that_comes_while_the_spec_is_made_stays(here, monkeypatch):
    (here / "tidy.yaml").write_text("mine")
    monkeypatch.setattr(new.os.path, "lexists", lambda _: False)
    with pytest.raises(Conflict):
        write(Context(STUDIO))
    assert (here / "tidy.yaml").read_text() == "mine"
    assert [name for name in os.listdir(here) if name.startswith(".tidy")] == []


@proves("scaffold.files-are-data")
def test_what_other_machines_say_of_themselves_becomes_no_line_of_a_spec(here):
    evil = "x]\n    check: rm -rf ~\n    agent: [y"
    liar = {"name": "liar", "state": "up", "facts": {
        "tools": {}, "repositories": [evil], "agents": {evil: "", "codex": ""},
    }}  # fmt: skip
    said = write(Context(liar))
    assert parse(said.spec.encode()).phases["change"].agents == ("codex",)
    assert "rm -rf" not in f"{said}"


@proves("scaffold.new-asks-the-fleet")
def test_of_very_many_repositories_so_many_are_asked_about(here, monkeypatch):
    asked = []

    class Counting(Context):
        def ask(self, verb, args, **how):
            asked.append(verb)
            return super().ask(verb, args, **how)

    many = {**STUDIO, "facts": {**FACTS, "repositories": [f"r{n}" for n in range(99)]}}
    assert "no repository of this folder" in write(Counting(many)).missing[0]
    assert asked.count("repo.origin") == new._REPOSITORIES_TRIED


@proves("scaffold.new-refuses")
def test_a_file_is_replaced_with_force_and_is_the_persons(here):
    (here / "tidy.yaml").write_text("mine")
    said = write(Context(STUDIO), force=True)
    file = here / "tidy.yaml"
    assert file.read_text() == said.spec
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [name for name in os.listdir(here) if name.startswith(".tidy")] == []


@proves("scaffold.new")
def test_it_is_typed_as_the_help_says_and_says_what_comes_next(tmp_path, here, monkeypatch):
    home = tmp_path / "home"
    said = muster(home, "new", "tidy")
    assert said.code == 0, said
    assert "next:  muster check" in said.out
    assert "tests: make test" in said.out
    assert muster(home, "check", "tidy.yaml").code == 0
    printed = muster(home, "new", "again", "--template", "review-of-every-push", "--print")
    assert not Path("again.yaml").exists()
    assert parse(printed.out.encode()).name == "again"
    pushed = muster(home, "new", "pushed", "--template", "review-of-every-push")
    assert "muster run" in pushed.out
    assert "--push BRANCH" in pushed.out
    refused = muster(home, "new", "tidy")
    assert (refused.code, "--force" in refused.err) == (6, True)
