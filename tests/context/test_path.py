"""What a file may be called, what is left out, and what is a key."""

import random
import re
import unicodedata
from pathlib import PurePosixPath

import pytest
from tests.promise import proves

from muster.context import secret
from muster.context.ignore import DEFAULT, LOCKED, Ignore, read_pattern
from muster.context.path import folded, path_refusal
from muster.context.secret import Search, find_doubtful, find_secret
from muster.errors import Malformed


@pytest.mark.parametrize(
    "path", ["n.md", "a/b c/d.md", ".claude/skills/x/SKILL.md", "Ünï/日本.md", "a-b_c (1).md", "-rf",
             "console.log", "comet", "x.git", "a'b\"c", "*?", "👩\u200d💻.md"],
)  # fmt: skip
def test_an_ordinary_path_is_taken(path):
    assert path_refusal(path) == ""


BAD = [
    "", "/", "/etc/x", "../x", "a/../../x", "a//b", "a/", "./a", "a/.", ".git/hooks/post-checkout",
    "sub/.GIT/config", ".g\u200dit/x", "GIT~1/x", "CON", "con.txt", "a/NUL/b", "lpt1.md", "COM¹", "x.",
    "x ", "a./b", "a:b", "C:/x", "a\\b", "a\nb", "a\0b", "a\x7fb", "\u202egpj.md", "a\u2028b", "x" * 256,
    "é" * 128, "e\u0301.md", "a/" * 32 + "b", "n/" * 31 + "x" * 1000, ".~muster-1234", "a/.~MUSTER-x/b",
    "\udcff",
]  # fmt: skip


@proves("context.paths-stay-inside")
@pytest.mark.parametrize("path", BAD, ids=range(len(BAD)))
def test_a_path_that_leads_out_or_is_another_elsewhere_is_refused(path):
    assert path_refusal(path)


@proves("context.paths-stay-inside")
def test_whatever_is_taken_is_a_way_down_in_one_spelling():
    draw = random.Random(7)
    marks = [
        "a",
        "B",
        "..",
        ".",
        "/",
        "//",
        "\\",
        ":",
        "é",
        "e\u0301",
        " ",
        "\0",
        "git",
        ".git",
        "~",
    ]
    taken = 0
    for _ in range(5_000):
        path = "".join(draw.choices(marks, k=draw.randint(1, 6)))
        if path_refusal(path) == "":
            taken += 1
            parts = PurePosixPath(path).parts
            assert "/".join(parts) == path
            assert not {"..", ".", "/"} & set(parts)
            assert unicodedata.normalize("NFC", path) == path
    assert taken > 500


def test_names_that_a_disk_takes_for_one_fold_alike():
    assert folded("Straße/É.md") == folded("STRASSE/e\u0301.md")
    assert folded("a") != folded("b")


@proves("context.machine-configuration-stays-here")
def test_what_makes_a_machine_obey_is_left_out_whatever_a_synced_file_says():
    lines = [f"!{name}" for name in (*LOCKED, *DEFAULT)] + ["!.claude/settings.json", "!**", "!*"]
    for ignore in (Ignore(), Ignore(lines)):
        for path in (
            ".claude/settings.json", ".claude/settings.local.json", "a/.mcp.json", "hooks/pre.sh",
            ".claude/hooks/x", ".git/config", "a/.ENV", "Settings.JSON", "x/.~muster-1", ".env.local",
            "deploy.pem", ".ssh/config", "a/.aws/x", ".codex/config.toml", "a/opencode.json",
            ".claude.json", ".vscode/tasks.json", ".husky/pre-commit", ".bashrc", "x/.zshenv",
            ".gitconfig", ".git-credentials", "authorized_keys", "id_ed25519", "id_rsa.old",
            ".docker/config.json", ".claude/plugins/x/run.sh", "fish/conf.d/a.fish", "a/.Profile",
            ".config/nvim/init.lua", "app.desktop", ".kube/config", "sitecustomize.py",
        ):  # fmt: skip
            assert ignore.leaves_out(path), path
    assert Ignore(lines).leaves_out("node_modules/a") is False
    for path in ("config.toml", "plugins/x", ".codex/AGENTS.md", "docs/settings.md", "id_card.md"):
        assert not Ignore(["!id_*"]).leaves_out(path), path


@proves("context.machine-configuration-stays-here")
def test_what_a_file_is_by_where_the_folder_lies_is_left_out_as_well():
    assert Ignore(above=("/", "home", "ada", ".codex")).leaves_out("config.toml")
    assert Ignore(above=("/", "home", "ada", ".Claude")).leaves_out("plugins/x/run.sh")
    assert not Ignore(above=("/", "home", "ada", ".claude")).leaves_out("skills/x/SKILL.md")


def test_a_file_in_the_folder_leaves_out_more_and_takes_back():
    ignore = Ignore(["# remark", "", "*.log", "!dist", "/docs/private", "build/**", "!keep.log"])
    assert ignore.leaves_out("a/b.log")
    assert not ignore.leaves_out("a/keep.log")
    assert not ignore.leaves_out("dist/x")
    assert ignore.leaves_out("docs/private/x")
    assert not ignore.leaves_out("a/docs/private")
    assert ignore.leaves_out("node_modules/x/y.js")
    assert not Ignore().leaves_out("n.md")
    assert Ignore(["sub", "!sub/x"]).leaves_out("sub/x"), "what is below is never looked at"


@pytest.mark.parametrize("line", ["", "  ", "!", "a/**/b", "../x", "x" * 300, "a\0b", "a//b"])
def test_a_line_that_is_no_pattern_is_refused_where_it_is_typed_and_left_out_where_it_came(line):
    with pytest.raises(Malformed):
        read_pattern(line)
    assert not Ignore([line]).leaves_out("n.md")


def test_a_pattern_made_to_be_slow_is_not():
    ignore = Ignore(["*a" * 40 + "b"] * 5)
    assert not ignore.leaves_out("a" * 200)


# None of these was ever anybody's.
KEYS = [
    "-----BEGIN OPENSSH PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    "AKIA" + "Z" * 16, "ghp_" + "a1" * 18, "github_pat_" + "a" * 60, "glpat-" + "x" * 20,
    "sk-ant-api03-" + "x" * 40, "sk-proj-" + "y" * 40, "sk-" + "z" * 48, "AIza" + "x" * 35,
    "GOCSPX-" + "x" * 28, "xoxb-" + "1" * 12, "sk_live_" + "a" * 24, "npm_" + "a" * 36,
    "pypi-AgE" + "x" * 60, "hf_" + "a" * 36,
    "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + "." + "c" * 30, "postgres://bob:hunter22@db/x",
    "AGE-SECRET-KEY-1" + "Q" * 58,
]  # fmt: skip


@proves("context.keys-stay-here")
@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_a_key_is_found_by_its_sort_and_line_and_not_shown(key):
    found = find_secret(f"# notes\n\nuse `{key}` there\n")
    assert found is not None
    assert found.line == 3
    assert key not in repr(found)


def test_ordinary_words_are_no_keys():
    text = (
        "the key is in the vault; see https://example.org:8443/a@b, sk-learn, ghp_short, task-force\n"
        "postgres://$USER:$PASSWORD@db/x and git@github.com:a/b and sha256 " + "a" * 64 + "\n"
        "AKIAlike text, eyJust a word, risk-ant-farm\n"
    )
    assert find_secret(text) is None


def test_a_password_like_line_is_doubtful_only():
    assert find_doubtful("a\npassword = hunter2222\n") == ("a password", 2)
    assert find_doubtful("password: $PASSWORD\nthe password is in the vault\n") is None


@pytest.mark.parametrize(
    "word",
    ["password", "PassWd", "SECRET", "api_key", "Api-Key", "apikey", "auth_token", "ACCESS-TOKEN",
     "pa\u017f\u017fword", "ap\u0131_key", "api_\u212aey", "acce\u017fs_token"],
)  # fmt: skip
def test_each_word_for_a_password_is_found_in_any_case_also_that_of_odd_letters(word):
    assert find_doubtful(f"{word} = hunter2222") == ("a password", 1)


@proves("context.keys-stay-here")
def test_of_several_keys_the_first_is_told_as_it_is_by_all_patterns_at_once():
    every = re.compile("|".join(f"({each})" for each in secret._SORTS.values()))
    draw = random.Random(5)
    parts = [*KEYS, "\n", " ", "word ", "sk-", "eyJ", "://", "a://b", "x", "-", "gh", "ghp_"]
    for _ in range(2_000):
        text = "".join(draw.choices(parts, k=draw.randint(1, 8)))
        hit, found = every.search(text), find_secret(text)
        assert (found is None) == (hit is None), text
        if hit is not None and found is not None:
            assert found.line == text.count("\n", 0, hit.start()) + 1


@proves("context.keys-stay-here")
@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
@pytest.mark.parametrize("size", [7, 100, 5_000])
def test_a_key_in_a_text_that_comes_in_parts_is_found_wherever_it_is_cut(key, size):
    text = ("line\n" * 4_000 + f"use {key} there\n" + "line\n" * 100).encode()
    search = Search()
    found = [search.feed(text[at : at + size]) for at in range(19_900, len(text), size)]
    (first, *_) = [each for each in found if each is not None]
    assert first.line == 4_001 - 19_900 // 5


def test_a_text_made_to_be_slow_is_not():
    for text in ("eyJ" * 20_000, "a://" * 20_000, "xoxb-" * 20_000, "password=" * 10_000):
        find_secret(text)
        find_doubtful(text)


@proves("context.keys-stay-here")
@pytest.mark.parametrize("before", ["", "x" * 40 + " ", "(", "a://" * 9 + " "])
def test_the_longest_password_in_an_address_is_found(before):
    longest = f"{'a' * 21}://{'u' * 80}:{'p' * 80}@w"
    assert find_secret(before + longest + " and more") == ("a password in an address", 1)
    assert find_secret(before + longest[:-1] + "\n") is None


def test_of_a_text_of_addresses_each_is_looked_through_as_far_as_one_is_long(monkeypatch):
    sort, looked = "a password in an address", list[int]()
    pattern = secret._COMPILED[sort]

    class Counting:
        def search(self, text: str, start: int, end: int) -> "re.Match[str] | None":
            looked.append(min(end, len(text)) - start)
            return pattern.search(text, start, end)

    monkeypatch.setitem(secret._COMPILED, sort, Counting())
    assert find_secret("a://" * 5_000) is None
    assert len(looked) == 5_000
    assert max(looked) < 200
