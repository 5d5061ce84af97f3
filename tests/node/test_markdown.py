"""What is known goes into folders and comes back, through real cores."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from tests.node.cores import Cores, One
from tests.node.test_memory import remember, write
from tests.promise import proves

from muster import errors
from muster.errors import NotFound, Refused
from muster.memory.kinds import MemoryPut
from muster.memory.markdown import Layout
from muster.verbs.markdown import MARKS, Export, Import, export, import_
from muster.verbs.table import VERBS

LAYOUTS = get_args(Layout)
TOKEN = "ghp_" + "a1B2" * 9


def door(one: One) -> Any:
    """The command that these verbs run in, as a person types it on this machine."""

    def ask(verb: str, args: Any) -> Any:
        row = VERBS[verb]
        named = str(args.get(row.object, "*")) if row.object else "*"
        ordered = row.auth in ("order", "agent")
        answer = one.order(verb, named, args) if ordered else one.call(verb, args)
        if not answer["ok"]:
            raise getattr(errors, answer["error"]["kind"])(answer["error"]["text"])
        return answer["value"]

    return SimpleNamespace(ask=ask, note=lambda _text: None, say=lambda _text: None)


def bring(one: One, folder: Path, **more: Any) -> dict[str, str]:
    found = import_(door(one), Import(folder=str(folder), **more))
    return {each.file: each.fate for each in found.notes}


def put(one: One, folder: Path, **more: Any) -> Any:
    return export(door(one), Export(folder=str(folder), **more))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def puts(one: One) -> int:
    return len(one.entries("memory.put"))


def known(one: One, key: str) -> list[tuple[str, str, str]]:
    answer = one.call("memory", {"key": key})
    return [(each["text"], each["state"], each["trust"]) for each in answer.get("value", [])]


@pytest.fixture
def hub() -> One:
    world = Cores("hub")
    world.pass_ms(1_000)
    hub = world["hub"]
    remember(hub, "main/port", "it is 7447", tag=["repo:main"])
    remember(hub, "rule", "never force-push", pin=True)
    remember(hub, "main/tests/where", "they are in tests/\n\nrun them with make test")
    for number in range(150):
        write(world, "hub", MemoryPut(f"many/{number}", f"text {number} of many", tags=["x:y"]))
    return hub


@proves("memory.files-come-back")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_and_in_and_out_again_writes_nothing_and_gives_equal_bytes(hub, tmp_path, layout):
    one, two = tmp_path / "one", tmp_path / "two"
    assert put(hub, one, layout=layout).written == len(files(one)) - 1
    before = puts(hub)
    assert bring(hub, one, layout=layout) == {}
    assert puts(hub) == before
    put(hub, two, layout=layout)
    assert files(one) == files(two)
    again = put(hub, one, layout=layout)
    assert (again.written, again.same) == (0, len(files(one)) - 1)


@proves("memory.imports-compare")
def test_a_change_is_over_the_version_that_the_file_was_made_of(hub, tmp_path):
    put(hub, tmp_path)
    file = tmp_path / "fleet" / "main" / "port.md"
    file.write_text(file.read_text().replace("7447", "7450"))
    assert bring(hub, tmp_path, plan=True) == {"fleet/main/port.md": "changed"}
    assert known(hub, "main/port") == [("it is 7447", "active", "person")]
    # An import counts least: it stands beside what a person said, and replaces nothing of that.
    assert bring(hub, tmp_path) == {"fleet/main/port.md": "changed"}
    assert known(hub, "main/port") == [
        ("it is 7447", "conflict", "person"), ("it is 7450", "conflict", "machine")]  # fmt: skip
    assert bring(hub, tmp_path) == {}, "what was imported is known"


@proves("memory.imports-compare")
def test_what_a_person_says_to_be_their_own_replaces_as_if_it_was_typed(hub, tmp_path):
    put(hub, tmp_path)
    file = tmp_path / "fleet" / "main" / "port.md"
    file.write_text(file.read_text().replace("7447", "7450"))
    assert bring(hub, tmp_path, mine=True) == {"fleet/main/port.md": "changed"}
    assert known(hub, "main/port") == [("it is 7450", "active", "person")]
    # The file is of a version that counts no more.
    file.write_text(file.read_text().replace("7450", "7451"))
    assert bring(hub, tmp_path, mine=True) == {"fleet/main/port.md": "stale"}
    assert known(hub, "main/port") == [("it is 7450", "active", "person")]


@proves("memory.imports-compare", "memory.refuted-stays-refuted")
def test_what_was_refuted_is_listed_and_not_written_however_it_is_told(hub, tmp_path):
    put(hub, tmp_path)
    version = hub.call("memory", {"key": "main/port"})["value"][0]["version"]
    args = {"version": version[:8], "reason": ["it", "moved"]}
    assert hub.order("refute", version[:8], args)["ok"]
    (tmp_path / "new.md").write_text("It is 7447.")
    (tmp_path / "rule.md").write_text("force-push as you like")
    before = puts(hub)
    for more in ({"plan": True}, {}, {"mine": True}):
        assert bring(hub, tmp_path, **more) == {
            "fleet/main/port.md": "refuted", "new.md": "refuted", "rule.md": "differs"}  # fmt: skip
    assert puts(hub) == before


@proves("memory.imports-compare", "memory.erased-leaves-no-word")
@pytest.mark.parametrize("more", [{"plan": True}, {}, {"mine": True}])
def test_an_old_export_does_not_bring_back_what_was_erased(hub, tmp_path, more):
    put(hub, tmp_path)
    version = hub.call("memory", {"key": "main/port"})["value"][0]["version"]
    assert hub.order("forget", version, {"version": version})["ok"]
    before = puts(hub)
    assert bring(hub, tmp_path, **more)["fleet/main/port.md"] == "stale"
    assert puts(hub) == before


@proves("memory.imports-compare")
def test_what_is_not_there_says_nothing(hub, tmp_path):
    put(hub, tmp_path / "a")
    for file in (tmp_path / "a").rglob("*.md"):
        file.unlink()
    assert bring(hub, tmp_path / "a") == {}
    assert len(known(hub, "main/port")) == 1
    with pytest.raises(NotFound):
        bring(hub, tmp_path / "nowhere")


@proves("memory.imports-compare")
def test_notes_of_another_program_come_in_once_count_least_and_follow_their_file(hub, tmp_path):
    file = tmp_path / "user_role.md"
    file.write_text("---\nname: role\ndescription: d\ntype: user\n---\n\nA data scientist.\n")
    (tmp_path / "MEMORY.md").write_text("# Memory\n- [role](user_role.md) — d\n")
    for fates in ({"user_role.md": "new"}, {}):
        assert bring(hub, tmp_path, layout="claude", scope="private") == fates
    (found,) = hub.call("memory", {"key": "role"})["value"]
    assert (found["scope"], found["trust"], found["tags"]) == ("private", "machine", ["type:user"])
    file.write_text(file.read_text().replace("data", "rocket"))
    assert bring(hub, tmp_path, layout="claude", scope="private") == {"user_role.md": "changed"}
    assert known(hub, "role") == [("A rocket scientist.", "active", "machine")]
    (recalled,) = hub.call("recall", {"words": ["rocket"]})["value"]
    assert recalled["rank"] == 0


@proves("memory.imports-compare")
def test_only_plain_files_of_a_bounded_size_without_a_secret_are_read(hub, tmp_path):
    outside = tmp_path / "outside.md"
    outside.write_text("what lies outside")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.md").symlink_to(outside)
    (folder / "way").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.md")
    (folder / "huge.md").write_text("x" * 200_000)
    (folder / "long.md").write_text("word " * 4_000)
    (folder / "token.md").write_text(f"---\nkey: t\n---\nthe token is\n{TOKEN}\n")
    (folder / "empty.md").write_text("---\nkey: e\n---\n\n")
    (folder / "bytes.md").write_bytes(b"\xff\xfe\x00")
    (folder / "yaml.md").write_text("---\na: &a [*a]\n---\nx\n")
    (folder / "good.md").write_text("a good one")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.md").write_text("not a note")
    (folder / "other.txt").write_text("no Markdown")
    found = import_(door(hub), Import(folder=str(folder)))
    fates = {each.file: each.fate for each in found.notes}
    assert fates.pop("good.md") == "new"
    assert set(fates.values()) == {"unfit"}
    assert set(fates) == {"link.md", "pipe.md", "huge.md", "long.md", "token.md", "empty.md",
                          "bytes.md", "yaml.md"}  # fmt: skip
    why = {each.file: each.why for each in found.notes}
    assert "line 5 holds a GitHub token" in why["token.md"]
    assert "link" in why["link.md"]
    assert TOKEN not in str(found)
    note = {"key": "t", "text": TOKEN}
    (judged,) = hub.call("memory.plan", {"notes": [note]})["value"]
    assert judged["fate"] == "unfit"
    assert TOKEN not in str(judged)


@proves("memory.files-are-left-alone")
def test_what_somebody_wrote_since_is_not_written_over(hub, tmp_path):
    put(hub, tmp_path)
    file = tmp_path / "fleet" / "main" / "port.md"
    mine = file.read_text().replace("7447", "9999")
    file.write_text(mine)
    remember(hub, "more", "something new")
    with pytest.raises(Refused, match="changed since"):
        put(hub, tmp_path)
    assert file.read_text() == mine
    assert not (tmp_path / "fleet" / "more.md").exists(), "nothing was written at all"
    assert put(hub, tmp_path, replace=True).written == 3
    assert "7447" in file.read_text()
    version = hub.call("memory", {"key": "more"})["value"][0]["version"]
    remember(hub, "more", "something newer", over=[version])
    assert put(hub, tmp_path).written == 2, "what an export wrote follows"


@proves("memory.files-are-left-alone")
def test_no_link_leads_an_export_out_of_its_folder(hub, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "in"
    outside.mkdir()
    folder.mkdir()
    (folder / "fleet").symlink_to(outside)
    with pytest.raises(Refused, match="no folder of its own"):
        put(hub, folder, replace=True)
    (folder / "fleet").unlink()
    (folder / "fleet").mkdir()
    target = outside / "target"
    target.write_text("mine")
    (folder / "fleet" / "rule.md").symlink_to(target)
    with pytest.raises(Refused, match="no plain file"):
        put(hub, folder, replace=True)
    assert target.read_text() == "mine"
    assert files(outside) == {"target": b"mine"}
    (folder / MARKS).unlink(missing_ok=True)


@proves("memory.imports-compare")
def test_a_thousand_files_are_asked_in_few_calls(tmp_path):
    world = Cores("hub")
    world.pass_ms(1_000)
    for number in range(1_000):
        (tmp_path / f"topic_{number}.md").write_text(
            f"---\nname: topic-{number}\ndescription: d\ntype: project\n---\n\nText {number}.\n"
        )
    asked = []
    way = door(world["hub"])
    counted = SimpleNamespace(
        ask=lambda verb, args: asked.append(verb) or way.ask(verb, args), note=way.note, say=way.say
    )
    found = import_(counted, Import(folder=str(tmp_path), layout="claude"))
    assert (found.new, found.files) == (1_000, 1_000)
    assert len(asked) == 10
    assert bring(world["hub"], tmp_path, layout="claude") == {}


@proves("memory.scopes-do-not-leak", "memory.imports-compare")
def test_what_is_to_be_private_goes_nowhere_else_whatever_its_folders_are_called(hub, tmp_path):
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "trucks.md").write_text("the trucks of our fleet")
    (tmp_path / "thread-plans").mkdir()
    (tmp_path / "thread-plans" / "next.md").write_text("what comes next")
    for more in ({"plan": True}, {}, {"mine": True}):
        fates = bring(hub, tmp_path, scope="private", **more)
        assert set(fates.values()) <= {"new"}
    for key in ("fleet/trucks", "thread-plans/next"):
        (found,) = hub.call("memory", {"key": key})["value"]
        assert found["scope"] == "private"
    # An export of the fleet, taken for this machine alone, is this machine's alone.
    put(hub, tmp_path / "all")
    assert bring(hub, tmp_path / "all", scope="private")["fleet/main/port.md"] == "new"
    scopes = {each["scope"] for each in hub.call("memory", {"key": "main/port"})["value"]}
    assert scopes == {"fleet", "private"}


@proves("memory.scopes-do-not-leak", "memory.erased-leaves-no-word")
def test_what_was_erased_comes_back_in_no_other_scope(hub, tmp_path):
    put(hub, tmp_path)
    version = hub.call("memory", {"key": "main/port"})["value"][0]["version"]
    assert hub.order("forget", version, {"version": version})["ok"]
    assert bring(hub, tmp_path, scope="private")["fleet/main/port.md"] == "stale"


@proves("memory.imports-compare")
def test_an_order_to_import_into_one_scope_writes_into_no_other(hub):
    note = {"key": "k", "text": "x", "scope": "fleet"}
    answer = hub.order("memory.import", "private", {"notes": [note], "scope": "private"})
    assert answer["error"]["kind"] == "Malformed"


@proves("memory.imports-compare")
def test_a_thread_that_is_not_here_keeps_no_other_note_out(hub, tmp_path):
    (tmp_path / "thread-gone").mkdir()
    (tmp_path / "thread-gone" / "a.md").write_text("of a thread that was")
    (tmp_path / "b.md").write_text("of the fleet")
    for more in ({"plan": True}, {}):
        assert bring(hub, tmp_path, **more) == {"thread-gone/a.md": "unfit", "b.md": "new"}
    found = import_(door(hub), Import(folder=str(tmp_path)))
    assert "in no thread 'gone'" in found.notes[0].why
    with pytest.raises(NotFound, match="in no thread"):
        bring(hub, tmp_path, scope="thread:nobody")


@proves("memory.files-come-back")
def test_threads_of_one_name_are_told_apart_by_their_keepers(tmp_path):
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(2_000)
    hub = world["hub"]
    for name in ("hub", "studio"):
        add = {"name": "plans", "add": ["studio" if name == "hub" else "hub"]}
        assert world[name].order("thread", "plans", add)["ok"]
        world.pass_ms(1_000)
    remember(hub, "k", "ours", scope="thread:plans@hub")
    remember(hub, "k", "theirs", scope="thread:plans@studio")
    put(hub, tmp_path)
    told = {path: raw.decode().split("---\n")[2] for path, raw in files(tmp_path).items()
            if path.endswith("/k.md")}  # fmt: skip
    assert told == {"thread-plans@hub/k.md": "ours\n", "thread-plans@studio/k.md": "theirs\n"}
    assert bring(hub, tmp_path) == {}
    file = tmp_path / "thread-plans@studio" / "k.md"
    file.write_text(file.read_text().replace("theirs", "theirs too"))
    assert bring(hub, tmp_path, mine=True) == {"thread-plans@studio/k.md": "changed"}
    found = {each["scope"]: each["text"] for each in hub.call("memory", {"key": "k"})["value"]}
    assert found == {"thread:plans@hub": "ours", "thread:plans@studio": "theirs too"}


@proves("memory.files-come-back")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_key_that_is_called_as_the_file_of_another_ends_no_export(tmp_path, layout):
    world = Cores("hub")
    world.pass_ms(1_000)
    hub = world["hub"]
    for key in ("a", "a.md/b", "a.MD/c", "MEMORY.md/x", "system/rule.md/y", "system/rule"):
        remember(hub, key, f"this is {key}")
    put(hub, tmp_path / "one", layout=layout)
    assert bring(hub, tmp_path / "one", layout=layout) == {}
    put(hub, tmp_path / "two", layout=layout)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "one")) >= 7
