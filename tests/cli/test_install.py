"""`muster install` and `uninstall` in a real home, on files as persons have them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.agent.plugin.programs import PROGRAMS
from muster.errors import Conflict, MusterError, Refused
from muster.node.host.home import Home
from muster.verbs import install
from muster.verbs.installed import sha
from tests.cli.world import Said, everything_in, muster
from tests.promise import proves

ROOT = Path(__file__).parent.parent.parent
SETTINGS = '{\n    "model": "opus",\n    "hooks": {"Stop": [{"hooks": []}]}\n}\n'


class Person:
    def __init__(self, folder: Path) -> None:
        self.machine, self.home = folder / "machine", folder / "ann"
        (self.home / ".claude").mkdir(parents=True)
        (self.home / ".codex").mkdir()
        self.settings = self.home / ".claude" / "settings.json"
        self.settings.write_text(SETTINGS)
        self.settings.chmod(0o640)
        (self.home / ".codex" / "config.toml").write_text("model = 'x'\n")
        said = muster(self.machine, "init", "--name", "studio", "--operator", "ann", "--listen", "")
        assert said.code == 0, said

    def muster(self, *words: str, stdin: str | None = None, **more: str) -> Said:
        return muster(self.machine, *words, stdin=stdin, HOME=str(self.home), **more)

    def ok(self, *words: str) -> Any:
        said = self.muster(*words, "--json")
        assert said.code == 0, said
        return json.loads(said.out.strip().splitlines()[-1])

    @property
    def files(self) -> dict[str, bytes]:
        return everything_in(self.home)


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@proves("install.restores")
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_put_in_is_taken_out_byte_for_byte(person, name):
    before, ours = person.files, everything_in(person.machine / "plugins")
    first = person.ok("install", name, "--yes")
    there = person.files
    assert first["done"]
    assert there != before or everything_in(person.machine / "plugins") != ours
    again = person.ok("install", name, "--yes")
    assert {each["state"] for each in again["files"]} == {"as it was"}
    assert person.files == there
    person.ok("uninstall", name, "--yes")
    assert person.files == before
    assert everything_in(person.machine / "plugins") == ours


@proves("install.restores")
def test_nothing_is_written_before_the_person_saw_it_and_agreed(person):
    before = person.files
    said = person.muster("install", "claude")
    assert (said.code, person.files) == (1, before)
    assert "+++ " + str(person.settings) in said.out + said.err
    assert "enabledPlugins" in said.out + said.err
    # Of Muster's own files it is enough to name them.
    assert "hook.py: a new file of Muster's own" in said.out + said.err
    assert "import _socket" not in said.out + said.err
    assert not (person.machine / "plugins").exists()


@proves("install.restores")
def test_what_somebody_changed_since_stays(person):
    person.ok("install", "claude", "--yes")
    assert person.settings.stat().st_mode & 0o777 == 0o640
    now = json.loads(person.settings.read_text())
    person.settings.write_text(json.dumps({**now, "model": "haiku"}))
    person.ok("install", "claude", "--yes")
    taken = person.ok("uninstall", "claude", "--yes")
    states = {each["file"]: each["state"] for each in taken["files"]}
    assert states[str(person.settings)] == "kept what was changed since"
    assert json.loads(person.settings.read_text()) == {**json.loads(SETTINGS), "model": "haiku"}


@proves("install.restores")
@pytest.mark.parametrize("more", ["", "\n"])
def test_rights_that_somebody_took_from_a_file_since_stay_taken(person, more):
    person.settings.chmod(0o644)
    person.ok("install", "claude", "--yes")
    person.settings.write_text(person.settings.read_text() + more)
    person.settings.chmod(0o600)
    person.ok("uninstall", "claude", "--yes")
    assert person.settings.stat().st_mode & 0o777 == 0o600
    assert person.settings.read_text() == SETTINGS + more


@proves("install.restores")
def test_settings_that_lie_elsewhere_behind_a_link_stay_there(person):
    elsewhere = person.home / "dotfiles.json"
    elsewhere.write_text(SETTINGS)
    person.settings.unlink()
    person.settings.symlink_to(elsewhere)
    person.ok("install", "claude", "--yes")
    assert person.settings.is_symlink()
    assert "muster" in elsewhere.read_text()
    person.ok("uninstall", "claude", "--yes")
    assert elsewhere.read_text() == SETTINGS


COMMENTED = b"""\xef\xbb\xbf// mine: {\r
{\r
\t/* "mcpServers": {}, */\r
\t"theme": "dark // not a comment", // why\r
\t"hooks": { /* none yet */ }\r
}\r
"""


@proves("install.restores")
@pytest.mark.parametrize(
    ("name", "file"),
    [("gemini", ".gemini/settings.json"), ("qwen", ".qwen/settings.json"),
     ("vscode", ".config/Code/User/mcp.json"), ("opencode", ".config/opencode/opencode.jsonc"),
     ("cursor", ".cursor/hooks.json"), ("copilot", ".copilot/mcp-config.json")],
)  # fmt: skip
def test_settings_with_comments_keep_them_and_every_byte(person, name, file):
    settings = person.home / file
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_bytes(COMMENTED)
    person.ok("install", name, "--yes")
    there = settings.read_bytes()
    assert str(person.machine).encode() in there
    assert there.startswith(COMMENTED[: COMMENTED.index(b'"hooks"')])
    # Also where its person wrote in it since.
    settings.write_bytes(there.replace(b"// mine", b"// all mine"))
    person.ok("uninstall", name, "--yes")
    assert settings.read_bytes() == COMMENTED.replace(b"// mine", b"// all mine")
    settings.write_bytes(COMMENTED)
    person.ok("install", name, "--yes")
    person.ok("uninstall", name, "--yes")
    assert settings.read_bytes() == COMMENTED


@proves("install.restores")
def test_what_cannot_be_is_refused_in_a_sentence_and_nothing_is_written(person):
    person.settings.write_text("{ // with a comment\n}")
    before = person.files
    said = person.muster("install", "claude", "--yes")
    assert (said.code, person.files) == (3, before)
    assert "has comments" in said.err
    assert person.muster("install", "emacs", "--yes").code == 5
    assert "was put there" in person.muster("uninstall", "codex", "--yes").err
    assert person.muster("install", "codex", "--yes", "--project").code == 3


@proves("install.restores")
def test_two_homes_are_in_one_program_and_each_goes_alone(tmp_path, person):
    other = tmp_path / "other"
    said = muster(other, "init", "--name", "second", "--operator", "ann", "--listen", "")
    assert said.code == 0, said
    for name in PROGRAMS:
        person.ok("install", name, "--yes")
        first = person.files
        said = muster(other, "install", name, "--yes", HOME=str(person.home))
        assert said.code == 0, said
        assert muster(other, "uninstall", name, "--yes", HOME=str(person.home)).code == 0
        assert person.files == first
        said = muster(other, "install", name, "--yes", HOME=str(person.home))
        person.ok("uninstall", name, "--yes")
        texts = b"".join(person.files.values())
        assert str(other).encode() in texts
        assert str(person.machine).encode() not in texts
        assert muster(other, "uninstall", name, "--yes", HOME=str(person.home)).code == 0
        assert str(other).encode() not in b"".join(person.files.values())


@proves("install.restores")
def test_a_file_of_ours_that_its_person_changed_is_theirs_and_what_is_in_our_folder_goes(person):
    person.ok("install", "opencode", "--yes")
    (plugin,) = (person.home / ".config" / "opencode" / "plugins").glob("*.js")
    hook = person.machine / "plugins" / "opencode" / "hook.py"
    for each in (plugin, hook):
        each.write_text(each.read_text() + "\n// hers\n")
    now = plugin.read_text()
    taken = person.ok("uninstall", "opencode", "--yes")
    states = {each["file"]: each["state"] for each in taken["files"]}
    assert states[str(plugin)] == "kept what was changed since"
    assert (plugin.read_text(), hook.exists()) == (now, False)


@proves("install.restores")
def test_a_file_that_was_removed_since_stays_removed(person):
    person.ok("install", "claude", "--yes")
    person.settings.unlink()
    person.ok("uninstall", "claude", "--yes")
    assert not person.settings.exists()


@proves("install.restores")
def test_of_a_link_to_nothing_the_link_stays(person):
    person.settings.unlink()
    person.settings.symlink_to(person.home / "dotfiles" / "claude.json")
    before = person.files
    person.ok("install", "claude", "--yes")
    assert (person.home / "dotfiles" / "claude.json").exists()
    person.ok("uninstall", "claude", "--yes")
    assert (person.settings.is_symlink(), person.files) == (True, before)
    assert not (person.home / "dotfiles").exists()


@proves("install.restores")
@pytest.mark.parametrize("verb", [install.install, install.uninstall])
def test_what_somebody_wrote_while_the_question_was_open_is_not_overwritten(
    person, verb, monkeypatch
):
    if verb is install.uninstall:
        person.ok("install", "claude", "--yes")
    monkeypatch.setenv("HOME", str(person.home))

    def asked(*_: str) -> str:
        person.settings.write_text('{"hers": 1}')
        return "y"

    context = SimpleNamespace(
        home=Home(person.machine), say=lambda _: None, question=asked, note=lambda _: None
    )
    asks = {install.install: install.Install, install.uninstall: install.Uninstall}
    with pytest.raises(Conflict, match="while you were asked"):
        verb(context, asks[verb]("claude"))
    assert person.settings.read_text() == '{"hers": 1}'


@proves("install.cut-off")
@pytest.mark.parametrize("name", ["claude", "codex", "opencode"])
def test_killed_at_any_moment_either_verb_comes_to_what_it_would_have(tmp_path, person, name):
    (person.home / ".config" / "opencode").mkdir(parents=True)
    (person.home / ".config" / "opencode" / "opencode.jsonc").write_bytes(COMMENTED)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = [str(person.home), str(person.machine), name, str(scratch)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.killed_install", *words], capture_output=True, text=True,
        env={**os.environ, "HOME": str(person.home)}, cwd=ROOT, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    # Each file is at least made and put in its place.
    assert all(int(each) > 8 for each in done.stdout.split()), done.stdout


LINKS = {
    "claude": (".claude", ".claude/settings.local.json"),
    "gemini": (".gemini", ".gemini/settings.json"),
    "qwen": (".qwen", ".qwen/settings.json"),
    "cursor": (".cursor", ".cursor/mcp.json"),
    "vscode": (".vscode", ".vscode/mcp.json"),
    "opencode": (".opencode", "opencode.json", ".opencode/plugins"),
}


@proves("install.project-alone")
@pytest.mark.parametrize("name", LINKS)
def test_for_a_project_alone_no_link_of_it_leads_a_write_elsewhere(
    tmp_path, person, name, monkeypatch
):
    monkeypatch.setenv("HOME", str(person.home))
    notes = SimpleNamespace(
        home=Home(person.machine), say=lambda _: None, question=None, note=lambda _: None
    )
    for number, link in enumerate(LINKS[name]):
        elsewhere = tmp_path / f"elsewhere-{number}"
        elsewhere.mkdir()
        (elsewhere / "mcp.json").write_text("{}")
        # A folder, a file that is there, one that is not, and one behind a second link.
        (elsewhere / "again").symlink_to(elsewhere / "not" / "there")
        for each, target in enumerate(("", "mcp.json", "no.json", "again", "../person-to-be")):
            project = tmp_path / f"project-{number}-{each}"
            (project / link).parent.mkdir(parents=True)
            (project / link).symlink_to(elsewhere / target)
            monkeypatch.chdir(project)
            before = everything_in(tmp_path)
            with pytest.raises(MusterError):
                install.install(notes, install.Install(name, yes=True, project=True))
            assert everything_in(tmp_path) == before
            assert not (elsewhere / "not").exists()
            assert not (person.machine / "plugins" / name).exists()


@proves("install.project-alone")
def test_a_link_that_came_after_the_install_is_none_of_ours(tmp_path, person, monkeypatch):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(person.home))
    context = SimpleNamespace(
        home=Home(person.machine), say=lambda _: None, question=None, note=lambda _: None
    )
    wish = install.Install("opencode", yes=True, project=True)
    install.install(context, wish)
    # All that we wrote, elsewhere: none of that is the project's any more.
    (project / ".opencode").rename(elsewhere)
    (project / ".opencode").symlink_to(elsewhere)
    (project / "opencode.json").rename(elsewhere / "opencode.json")
    (project / "opencode.json").symlink_to(elsewhere / "opencode.json")
    # One that another install there has open right now.
    (elsewhere / ".tmp-muster-abcdefgh").touch()
    tag = install.place_of(context.home, "opencode", None).name
    (elsewhere / f".tmp-{tag}-abcdefgh").touch()
    before = everything_in(elsewhere)
    with pytest.raises(Refused, match="leads out of"):
        install.install(context, wish)
    taken = install.uninstall(context, install.Uninstall("opencode", yes=True))
    assert everything_in(elsewhere) == before
    states = {each.file: each.state for each in taken.files}
    assert states[str(project / "opencode.json")] == "kept what was changed since"
    assert not (person.machine / "plugins" / "opencode").exists()


@proves("install.project-alone")
def test_a_link_that_came_while_the_question_was_open_is_not_followed(
    tmp_path, person, monkeypatch
):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for each in (project, elsewhere):
        each.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(person.home))

    def asked(*_: str) -> str:
        (project / ".vscode").symlink_to(elsewhere)
        return "y"

    context = SimpleNamespace(
        home=Home(person.machine), say=lambda _: None, question=asked, note=lambda _: None
    )
    with pytest.raises(Refused, match="leads out of"):
        install.install(context, install.Install("vscode", project=True))
    assert not any(elsewhere.iterdir())


@proves("install.restores")
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(person):
    person.settings.unlink()
    os.mkfifo(person.settings)
    said = person.muster("install", "claude", "--yes")
    assert (said.code, "is no file" in said.err) == (3, True), said


def looked_at(person: Person, name: str) -> tuple[str, str, str]:
    """What doctor says of a program: state, text, and what mends it."""
    said = person.muster("doctor", "--json")
    checks = json.loads(said.out.strip().splitlines()[-1])["checks"]
    found = [each for each in checks if each["name"] == f"program {name}"]
    return (found[0]["state"], found[0]["text"], found[0]["mend"]) if found else ("", "", "")


@proves("install.is-looked-at")
def test_doctor_says_of_each_program_what_is_not_as_it_was_put_there_and_what_mends_it(person):
    assert looked_at(person, "qwen") == ("", "", "")
    person.ok("install", "qwen", "--yes")
    state, text, mend = looked_at(person, "qwen")
    assert (state, mend) == ("note", "muster up --detach"), text
    settings = person.home / ".qwen" / "settings.json"
    now = json.loads(settings.read_text())
    # What somebody else put beside it is no fault.
    settings.write_text(json.dumps({**now, "model": {"name": "x"}}))
    assert looked_at(person, "qwen")[0] == "note"
    settings.write_text(json.dumps({**now, "mcpServers": {}}))
    state, text, mend = looked_at(person, "qwen")
    assert (state, str(settings) in text) == ("wrong", True), text
    assert "muster install qwen" in mend
    person.ok("install", "qwen", "--yes")
    hook = person.machine / "plugins" / "qwen" / "hook.py"
    hook.unlink()
    assert str(hook) in looked_at(person, "qwen")[1]
    person.ok("install", "qwen", "--yes")
    assert looked_at(person, "qwen")[0] == "note"


@proves("install.is-looked-at")
def test_who_installs_hears_which_packages_the_tools_need(person, monkeypatch):
    monkeypatch.setenv("HOME", str(person.home))
    monkeypatch.setattr(install, "_NEEDED", ("mcp", "no_such_package"))
    told: list[str] = []
    context = SimpleNamespace(
        home=Home(person.machine), say=lambda _: None, question=None, note=told.append
    )
    assert install.install(context, install.Install("cursor", yes=True)).done
    assert ["no_such_package" in each and "[doors]" in each for each in told] == [True]


@proves("install.restores", "install.is-looked-at")
def test_what_an_older_version_put_in_works_is_said_and_is_made_whole_and_taken_out(person):
    before = person.files
    person.ok("install", "claude", "--yes")
    own, whole = person.machine / "plugins" / "claude", everything_in(person.machine)
    # As it was before a hook waited.
    kept = json.loads((own / "installed.json").read_text())
    hooks = own / "muster" / "hooks" / "hooks.json"
    known = json.loads(hooks.read_text())
    for event in known["hooks"].values():
        event[0]["hooks"] = [each for each in event[0]["hooks"] if not each.get("async")]
    hooks.write_text(json.dumps(known))
    del kept["files"][str(own / "wait_script.py")]
    kept["files"][str(hooks)]["edit"]["text"] = hooks.read_text()
    kept["files"][str(hooks)]["written"] = sha(hooks.read_bytes())
    (own / "installed.json").write_text(json.dumps(kept))
    (own / "wait_script.py").unlink()
    state, text, mend = looked_at(person, "claude")
    assert (state, "another version" in text, "install claude" in mend) == ("note", True, True)
    person.ok("install", "claude", "--yes")
    now = everything_in(person.machine)
    # Its record names the same files, in another order.
    names = [
        json.loads(each.pop("plugins/claude/installed.json"))["files"] for each in (now, whole)
    ]
    assert (names[0].keys(), now) == (names[1].keys(), whole)
    person.ok("uninstall", "claude", "--yes")
    assert (person.files, own.exists()) == (before, False)
