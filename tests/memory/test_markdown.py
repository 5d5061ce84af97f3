"""What is known as files in four layouts, and back: pure."""

import random
from typing import get_args

import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.memory import markdown
from muster.memory.kinds import PINNED
from muster.memory.markdown import INDEX, Layout, Note, folder, note_of
from muster.memory.print import text_print
from muster.verbs.markdown import _head

VERSION = "ab" * 32
LAYOUTS = get_args(Layout)
KEYS = (
    "a.md/b", "A.Md/c/d", "main/port", "a", "A", "main/tests/where", "x:y", "CON", "a/../b", "..", ".hidden", "end.",
    "system/rule", "MEMORY", "k" * 200, "a//b", "a_b", "a/b", "memory", "-dash", "1e5", "lpt1/nul.md",
)  # fmt: skip
TEXTS = (
    "it is 7447", "two\nlines", "---\nno head\n---\n", "a #tag at the end", "- [note] listed #x",
    "  blanks  ", "\nbegins and ends\n", "né 日本語 \u2028 \x85 x", "# title\n\n- [a](b.md) — c", "key: x",
    "x" * 9_000, "\x00\x1b[31m", "'\"\\", "- … and 5 more: x",
)  # fmt: skip
TAGS = ((), ("repo:main",), (PINNED,), ("type:feedback", "phase:build"), ("a#b", "1"))


def drawn(draw: random.Random) -> list[Note]:
    keys = draw.sample(KEYS, draw.randint(1, len(KEYS)))
    return [
        Note(
            key, draw.choice(TEXTS), draw.choice(TAGS), draw.randbytes(32).hex(),
            draw.choice(("fleet", "private", "thread:team", "thread:team@hub")), "active",
            draw.choice(("", "a: source # of 'it'\n---\n", "- x")), "op:alice", "2026-11-27T00:00:00Z",
        )
        for key in keys
        for _ in range(draw.randint(1, 2))
    ]  # fmt: skip


@proves("memory.files-come-back")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_goes_out_comes_back_as_what_it_was(layout):
    for seed in range(60):
        notes = drawn(random.Random(seed))
        files = folder(layout, notes)
        back = [
            note_of(layout, path, text.encode(), _head)
            for path, text in files.items()
            if path != INDEX
        ]
        assert len(back) == len(notes)
        found = {note.version: note for note in back}
        for note in notes:
            came = found[note.version]
            assert came.key == (note.key.strip("-/") or "-"), (note.key, came.key)
            assert text_print(came.text) == text_print(note.text), (layout, note.text)
            assert (PINNED in came.tags) == (PINNED in note.tags)
            if layout == "plain":
                assert (came.scope, came.tags, came.source) == (note.scope, note.tags, note.source)


@proves("memory.files-come-back")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_key_makes_a_path_that_leads_out_or_that_some_system_takes_for_another(layout):
    for seed in range(60):
        paths = [*folder(layout, drawn(random.Random(seed)))]
        assert len({path.casefold() for path in paths}) == len(paths)
        for path in paths:
            assert path.endswith(".md")
            for part in path.removesuffix(".md").split("/"):
                assert part
                assert part.strip(". ") == part
                assert len(part) < 200
                assert part.isascii()
                assert not set(part) & set('<>:"|?*\\')
                assert part.split(".")[0].casefold() not in ("con", "nul", "lpt1", "aux")


@proves("memory.files-come-back")
@pytest.mark.parametrize("layout", ["plain", "claude"])
def test_the_list_of_all_files_is_one_that_claude_reads_whole(layout):
    many = [
        Note(f"k/{n}", f"text {n} " + "x" * 300, version=f"{n:064x}", scope="fleet")
        for n in range(900)
    ]
    many.append(Note("rule", "never force-push", (PINNED,), VERSION, "fleet"))
    files = folder(layout, many)
    index = files[INDEX]
    assert len(index.splitlines()) <= 200
    assert len(index.encode()) <= 25_000
    assert index.splitlines()[2].startswith("- [rule]")
    assert "more: `muster recall" in index
    assert note_of(layout, INDEX, index.encode(), _head) is None
    more = note_of(layout, INDEX, (index + "\nThe host is called build.\n").encode(), _head)
    assert more is not None
    assert more.text == "The host is called build."


def test_what_other_programs_write_is_understood():
    claude = b"---\nname: user-role\ndescription: what the user does\ntype: user\n---\n\nA data scientist.\n"
    note = note_of("claude", "user_role.md", claude, _head)
    assert note == Note("user-role", "A data scientist.", ("type:user",))
    basic = b"---\ntitle: Coffee Brewing\ntype: note\ntags:\n- coffee\n- brewing\npermalink: coffee-brewing\n---\n\n# Coffee\n- [method] Pour over #brewing\n- relates_to [[Tea]]\n"
    note = note_of("basic-memory", "Coffee.md", basic, _head)
    assert (note.key, note.tags) == ("coffee-brewing", ("coffee", "brewing"))
    assert note.text.startswith("# Coffee\n- [method]")
    letta = b"---\ndescription: Who the human is\nlimit: 5000\n---\nThe human is Alice.\n"
    assert note_of("letta", "system/human.md", letta, _head) == Note(
        "human", "The human is Alice.", (PINNED,)
    )
    assert note_of("plain", "a b/c.md", b"no head", _head) == Note("a-b/c", "no head")
    assert note_of("plain", "thread-team/x.md", b"\xef\xbb\xbfone\r\ntwo\r\n", _head) == Note(
        "x", "one\ntwo", scope="thread:team"
    )


@proves("memory.files-come-back")
@pytest.mark.parametrize(
    "raw",
    [
        b"---\nkey: !!python/object:os.system x\n---\nx", b"---\na: &a [*a]\n---\nx", b"\xff\xfe\x00x",
        b"---\n- a\n- b\n---\nx", b"---\nkey: [\n---\nx", b"---\nkey: a\nkey: b\n---\nx", b"---\n\n---\nx",
        b"---\n%YAML 9\n---\nx", b"---\nkey: '..'\n---\nx",
    ],
)  # fmt: skip
def test_a_hostile_head_is_refused_by_a_sentence_or_is_a_name(raw):
    note, said = None, ""
    try:
        note = note_of("plain", "x.md", raw, _head)
    except Malformed as error:
        said = str(error)
    assert len(said) < 600
    assert (note is None) == bool(said)
    if note is not None:
        assert markdown._KEY_BAD.search(note.key) is None
        (path,) = folder("plain", [note]).keys() - {INDEX}
        assert ".." not in path.split("/")
