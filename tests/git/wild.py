"""Repositories as they come in the wild, made on the fly: `WILD` has each by name.

Each is made by one function, which gets an empty checkout on `main` and returns what is added, or
None for the checkout itself. `sentence` is what the refusal says, "" where everything works. `fires`
is what a person would type in the checkout to set off what is hidden in it: the proof that the
canary can die.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.git.repositories import commit, sh

Made = str | Path | None
LARGE = os.environ.get("MUSTER_WILD_LARGE") == "1"


class Wild(NamedTuple):
    make: Callable[["Source"], Made]
    sentence: str = ""
    fires: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    branch: str = "main"


class Source:
    """A checkout, the folder around it, and a program that kills the canary."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "source"
        self.path.mkdir(parents=True)
        self.canary = root / "canary"
        self.trap = root / "trap"
        self.trap.write_text(f"#!/bin/sh\ntouch '{self.canary}'\nexec cat\n")
        self.trap.chmod(0o755)
        self.git("init", "-q")

    def git(self, *args: str, stdin: bytes = b"", **env: str) -> str:
        return sh(self.path, *args, stdin=stdin, env=env)

    def write(self, name: str | bytes, text: str | bytes = "x\n") -> None:
        path = os.path.join(os.fsencode(self.path), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)

    def commit(self, message: str = "more") -> str:
        return commit(self.path, message)

    def first(self) -> str:
        self.write("readme.md", "hello\n")
        return self.commit("first")

    def config(self, **settings: str) -> None:
        for name, value in settings.items():
            self.git("config", name.replace("__", "."), value)

    def tree(self, *entries: tuple[str, str, bytes]) -> None:
        """A commit of a tree that git itself would not make: (mode, name, content)."""
        lines = b""
        for mode, name, content in entries:
            id = self.git("hash-object", "-w", "--stdin", stdin=content)
            kind = "tree" if mode == "040000" else "blob"
            lines += f"{mode} {kind} {id}\t{name}\0".encode()
        made = self.git("mktree", "-z", "--missing", stdin=lines)
        self.head_at(made)

    def folder(self, name: str) -> None:
        """A commit whose tree has this folder, which git itself would not make."""
        blob = self.git("hash-object", "-w", "--stdin", stdin=b"x\n")
        inner = self.git("mktree", stdin=f"100644 blob {blob}\tconfig\n".encode())
        line = f"100644 blob {blob}\tfile\0" + f"040000 tree {inner}\t{name}\0"
        self.head_at(self.git("mktree", "-z", stdin=line.encode()))

    def head_at(self, tree: str) -> None:
        self.git("update-ref", "refs/heads/main", self.git("commit-tree", "-m", "odd", tree))


WILD: dict[str, Wild] = {}


def wild(
    sentence: str = "",
    *,
    fires: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
    branch: str = "main",
) -> Callable[[Callable[[Source], Made]], Callable[[Source], Made]]:
    def keep(make: Callable[[Source], Made]) -> Callable[[Source], Made]:
        WILD[make.__name__] = Wild(make, sentence, fires, left_out, branch)
        return make

    return keep


# --- shapes of a source --------------------------------------------------------------------------


@wild()
def plain(s: Source) -> Made:
    s.first()
    return None


@wild()
def bare(s: Source) -> Made:
    s.first()
    s.git("clone", "-q", "--bare", ".", "../bare.git")
    return s.root / "bare.git"


@wild(branch="side")
def linked_worktree(s: Source) -> Made:
    s.first()
    s.git("worktree", "add", "-q", "-b", "side", "../linked")
    return s.root / "linked"


@wild()
def separate_git_folder(s: Source) -> Made:
    s.first()
    s.git("init", "-q", "--separate-git-dir", "../elsewhere")
    return None


@wild()
def bundle(s: Source) -> Made:
    s.first()
    s.git("bundle", "create", "-q", "../all.bundle", "--all", "HEAD")
    return s.root / "all.bundle"


@wild()
def file_address(s: Source) -> Made:
    s.first()
    return f"file://{s.path}"


@wild()
def alternates(s: Source) -> Made:
    s.first()
    s.git("clone", "-q", "--shared", ".", "../shared")
    return s.root / "shared"


@wild("damaged|not our ref")
def alternates_that_are_gone(s: Source) -> Made:
    s.first()
    s.git("clone", "-q", "--shared", ".", "../shared")
    shutil.rmtree(s.path / ".git" / "objects")
    return s.root / "shared"


@wild("unshallow")
def shallow(s: Source) -> Made:
    s.first()
    s.commit()
    s.git("clone", "-q", "--depth", "1", f"file://{s.path}", "../shallow")
    return s.root / "shallow"


@wild("partial clone")
def partial_clone(s: Source) -> Made:
    s.first()
    s.config(uploadpack__allowFilter="true", uploadpack__allowAnySHA1InWant="true")
    s.git("clone", "-q", "--bare", "--filter=blob:none", f"file://{s.path}", "../partial.git")
    where = s.root / "partial.git"
    sh(where, "config", "remote.origin.uploadpack", str(s.trap))
    sh(where, "config", "core.sshCommand", str(s.trap))
    return where


@wild("damaged|not our ref")
def promisor_hidden_in_an_include(s: Source) -> Made:
    s.first()
    (s.root / "more").write_text(
        f'[extensions]\npartialClone = origin\n[remote "origin"]\npromisor = true\n'
        f'url = ext::{s.trap}\nuploadpack = {s.trap}\n[protocol "ext"]\nallow = always\n'
    )
    s.config(core__repositoryformatversion="1", include__path=str(s.root / "more"))
    blob = s.git("rev-parse", "HEAD:readme.md")
    (s.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    return None


# --- heads and branches ----------------------------------------------------------------------------


@wild(branch="work")
def detached_with_one_branch(s: Source) -> Made:
    s.first()
    s.git("branch", "-m", "work")
    s.git("checkout", "-q", "--detach")
    s.commit()
    return None


@wild(branch="side")
def detached_at_a_branch(s: Source) -> Made:
    s.first()
    s.git("checkout", "-q", "-b", "side")
    s.commit()
    s.git("checkout", "-q", "--detach")
    return None


@wild("git switch BRANCH")
def detached_beside_all_branches(s: Source) -> Made:
    s.first()
    s.git("branch", "-m", "one")
    s.git("branch", "two")
    s.git("checkout", "-q", "--detach")
    s.commit()
    return None


@wild(branch="work")
def unborn_head_beside_a_branch(s: Source) -> Made:
    s.first()
    s.git("branch", "-m", "work")
    s.git("symbolic-ref", "HEAD", "refs/heads/never")
    return None


@wild("no commit on any branch")
def empty(s: Source) -> Made:
    return None


@wild("no commit on any branch")
def tags_alone(s: Source) -> Made:
    s.first()
    s.git("tag", "v1")
    s.git("checkout", "-q", "--detach")
    s.git("branch", "-D", "main")
    return None


@wild(left_out=("muster",))
def branch_named_muster(s: Source) -> Made:
    s.first()
    s.git("branch", "muster")
    return None


@wild(left_out=("muster/old/phase",))
def branches_of_another_fleet(s: Source) -> Made:
    s.first()
    s.git("branch", "muster/old/phase")
    return None


@wild("rename it there")
def default_branch_named_muster(s: Source) -> Made:
    s.first()
    s.git("branch", "-m", "muster")
    return None


@wild(branch="feature/ü#1 (it's)".replace(" ", "-"))
def odd_branch_names(s: Source) -> Made:
    s.first()
    for name in ("fix#12", "@x", "a(b)", "Feature", "it's", "$(x)", "a;b", "日本"):
        s.git("branch", name)
    s.git("checkout", "-q", "-b", "feature/ü#1-(it's)")
    return None


@wild()
def branch_that_is_no_text(s: Source) -> Made:
    id = s.first()
    packed = s.path / ".git" / "packed-refs"
    packed.write_bytes(f"{id} refs/heads/caf".encode() + b"\xe9\n")
    return None


@wild("not named in UTF-8")
def default_branch_that_is_no_text(s: Source) -> Made:
    id = s.first()
    (s.path / ".git" / "packed-refs").write_bytes(f"{id} refs/heads/caf".encode() + b"\xe9\n")
    (s.path / ".git" / "HEAD").write_bytes(b"ref: refs/heads/caf\xe9\n")
    return None


@wild()
def many_branches_and_tags(s: Source) -> Made:
    id = s.first()
    lines = [f"create refs/heads/b/{n} {id}\ncreate refs/tags/t{n} {id}\n" for n in range(2_000)]
    s.git("update-ref", "--stdin", stdin="".join(lines).encode())
    s.git("pack-refs", "--all")
    return None


@wild()
def tags_of_every_kind(s: Source) -> Made:
    s.first()
    s.git("tag", "light")
    s.git("tag", "-a", "-m", "x", "heavy")
    s.git("tag", "-a", "-m", "x", "of-a-tag", "heavy")
    s.git("tag", "of-a-blob", "HEAD:readme.md")
    s.git("tag", "of-a-tree", "HEAD^{tree}")
    return None


# --- histories ---------------------------------------------------------------------------------------


@wild("SHA-256")
def sha256(s: Source) -> Made:
    where = s.root / "sha256"
    sh(s.root, "init", "-q", "--object-format=sha256", str(where))
    commit(where, "first", readme__md="x")
    return where


@wild()
def replace_refs(s: Source) -> Made:
    first = s.first()
    s.write("second")
    second = s.commit()
    s.git("replace", second, first)
    return None


@wild()
def grafts(s: Source) -> Made:
    first = s.first()
    s.write("second")
    second = s.commit()
    s.write("third")
    s.commit()
    (s.path / ".git" / "info").mkdir(exist_ok=True)
    (s.path / ".git" / "info" / "grafts").write_text(f"{second} {first} {first}\n")
    return None


@wild()
def several_roots(s: Source) -> Made:
    s.first()
    s.git("checkout", "-q", "--orphan", "other")
    s.write("other")
    s.commit()
    s.git("checkout", "-q", "main")
    s.git("merge", "-q", "--allow-unrelated-histories", "-m", "both", "other")
    return None


@wild()
def nothing_in_the_tree(s: Source) -> Made:
    s.commit("empty")
    return None


@wild()
def odd_messages_and_authors(s: Source) -> Made:
    s.first()
    tree = s.git("rev-parse", "HEAD^{tree}")
    parent = s.git("rev-parse", "HEAD")
    raw = (
        (
            f"tree {tree}\nparent {parent}\nauthor  <> 0 +0000\ncommitter  <> 99999999999 +9999\n"
            "gpgsig -----BEGIN PGP SIGNATURE-----\n garbage\n"
        ).encode()
        + b"encoding nonsense\n\n\xff\xfe\x1b[2J"
        + b"m" * 1_000_000
    )
    made = s.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=raw)
    s.git("update-ref", "refs/heads/main", made)
    return None


@wild("is damaged|is corrupt|is empty")
def object_emptied(s: Source) -> Made:
    s.first()
    blob = s.git("rev-parse", "HEAD:readme.md")
    path = s.path / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o600)
    path.write_bytes(b"")
    return None


@wild()
def configuration_that_is_none(s: Source) -> Made:
    s.first()
    (s.path / ".git" / "config").write_bytes(b"[core\n\0\xff")
    return None


# --- submodules ----------------------------------------------------------------------------------------


def _submodule(s: Source, text: str) -> None:
    id = s.first()
    s.write(".gitmodules", text)
    s.git("add", ".gitmodules")
    s.git("update-index", "--add", "--cacheinfo", f"160000,{id},sub")
    s.git("commit", "-q", "-m", "sub")


@wild()
def submodule(s: Source) -> Made:
    _submodule(s, '[submodule "sub"]\n\tpath = sub\n\turl = ../other.git\n')
    return None


@wild()
def submodule_that_is_filled(s: Source) -> Made:
    s.first()
    s.git("clone", "-q", ".", "../other")
    s.git("submodule", "--quiet", "add", "../other", "sub")
    s.commit()
    hook = s.path / ".git" / "modules" / "sub" / "config"
    hook.write_text(hook.read_text() + f"[core]\n\tfsmonitor = {s.trap}\n")
    return None


@wild()
def submodule_that_updates_by_a_command(s: Source) -> Made:
    _submodule(s, '[submodule "sub"]\n\tpath = sub\n\turl = ../other.git\n')
    s.config(submodule__sub__update=f"!{s.trap}", submodule__recurse="true")
    s.config(submodule__sub__url=f"ext::{s.trap}", fetch__recurseSubmodules="true")
    s.config(protocol__ext__allow="always", submodule__sub__active="true")
    return None


@wild("not safe to clone")
def submodule_named_out_of_the_folder(s: Source) -> Made:
    _submodule(s, '[submodule "../../evil"]\n\tpath = sub\n\turl = ../other.git\n')
    return None


@wild("not safe to clone")
def submodule_with_an_option_as_address(s: Source) -> Made:
    _submodule(s, '[submodule "sub"]\n\tpath = sub\n\turl = --upload-pack=./evil\n')
    return None


@wild("checks out no path like this")
def submodules_behind_a_link(s: Source) -> Made:
    s.tree(("100644", "a", b"x\n"), ("120000", ".gitmodules", b"a"))
    return None


# --- attributes and filters ------------------------------------------------------------------------------


@wild()
def large_files_without_git_lfs(s: Source) -> Made:
    s.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    oid = "4" * 64
    s.write("a.bin", f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 9\n")
    s.commit()
    return None


@wild(fires=("add", "--renormalize", "."))
def filters(s: Source) -> Made:
    s.first()
    s.write(".gitattributes", "*.md filter=x\n")
    s.commit()
    s.config(filter__x__clean=str(s.trap), filter__x__smudge=str(s.trap))
    s.config(filter__x__process=str(s.trap), filter__x__required="true")
    return None


@wild(fires=("show", "--ext-diff", "--textconv", "HEAD"))
def drivers(s: Source) -> Made:
    s.write(".gitattributes", "* diff=x merge=x\n")
    s.first()
    s.config(diff__x__command=str(s.trap), diff__x__textconv=str(s.trap))
    s.config(merge__x__driver=f"{s.trap} %A", merge__default="x")
    return None


@wild()
def merge_by_union(s: Source) -> Made:
    s.write(".gitattributes", "*.md merge=union\n")
    s.first()
    return None


@wild()
def line_ends_of_others(s: Source) -> Made:
    s.write("w.txt", "a\r\nb\r\n")
    s.write("m.txt", "a\r\nb\n")
    s.commit()
    s.write(".gitattributes", "*.txt text eol=lf\n*.bat eol=crlf\n")
    s.write("run.bat", "x\n")
    s.git("add", ".gitattributes", "run.bat")
    s.git("commit", "-q", "-m", "attributes")
    return None


@wild()
def other_encodings(s: Source) -> Made:
    s.write("b.odd", b"\xff\xfe")
    s.commit()
    s.write(".gitattributes", "*.u16 working-tree-encoding=UTF-16\n*.odd working-tree-encoding=x\n")
    s.write("a.u16", "hé\n".encode("utf-16"))
    s.git("add", ".gitattributes", "a.u16")
    s.git("commit", "-q", "-m", "encodings")
    return None


@wild()
def keywords(s: Source) -> Made:
    s.write(".gitattributes", "*.c ident export-subst\n")
    s.write("a.c", "$Id$ $Format:%H$\n")
    s.commit()
    return None


# --- names and links -----------------------------------------------------------------------------------------


@wild()
def links(s: Source) -> Made:
    s.first()
    for name, to in (
        ("absolute", "/etc/passwd"), ("outside", "../../.."), ("loop", "loop"),
        ("dangling", "nowhere"), ("to-git", ".git/config"), ("device", "/dev/zero"),
    ):  # fmt: skip
        (s.path / name).symlink_to(to)
    s.commit()
    return None


@wild()
def odd_names(s: Source) -> Made:
    for name in (
        b"new\nline", b"-dash", b"--help", b"trail ", b" lead", b"caf\xe9", b'quo"te', b"back\\slash",
        b"tab\t", b"$(touch x)", b"a;b", b"*", b"?", b"[x]", b"#x", b"!x", b"\xf0\x9f\x98\x80",
        b"\xe2\x80\xaegnp.exe", b"\x01\x02", b"l" * 250, b"d /f ", b":(top)x", b"@{u}", b"HEAD",
    ):  # fmt: skip
        s.write(name)
    s.commit()
    return None


@wild()
def names_that_differ_in_case(s: Source) -> Made:
    for name in ("README", "readme", "Dir/a", "dir/a"):
        s.write(name, name)
    s.commit()
    return None


@wild("checks out no path like this")
def git_folder_in_capitals(s: Source) -> Made:
    s.folder(".GIT")
    return None


@wild("checks out no path like this")
def git_folder_by_its_short_name(s: Source) -> Made:
    s.folder("git~1")
    return None


@wild("checks out no path like this")
def git_folder_with_what_is_not_seen(s: Source) -> Made:
    s.folder(".g\u200cit")
    return None


@wild("checks out no path like this|safe|damaged|cannot|failed")
def git_folder_itself(s: Source) -> Made:
    s.folder(".git")
    return None


@wild()
def deep_folders(s: Source) -> Made:
    s.write("/".join(["d"] * 500) + "/file")
    s.commit()
    return None


# --- what runs something -----------------------------------------------------------------------------------


@wild(fires=("checkout", "-q", "-b", "x"))
def hooks(s: Source) -> Made:
    s.first()
    folder = s.path / ".git" / "hooks"
    folder.mkdir(exist_ok=True)
    for name in (
        "post-checkout", "pre-commit", "post-commit", "pre-push", "reference-transaction",
        "post-index-change", "pre-receive", "update", "post-receive", "post-update", "pre-auto-gc",
        "post-merge", "post-rewrite", "fsmonitor-watchman", "post-upload-pack", "pre-upload-pack",
        "proc-receive", "push-to-checkout",
    ):  # fmt: skip
        (folder / name).symlink_to(s.trap)
    return None


@wild(fires=("checkout", "-q", "-b", "x"))
def hooks_folder_that_is_a_link(s: Source) -> Made:
    s.first()
    aside = s.root / "aside"
    aside.mkdir()
    (aside / "post-checkout").symlink_to(s.trap)
    (aside / "reference-transaction").symlink_to(s.trap)
    shutil.rmtree(s.path / ".git" / "hooks", ignore_errors=True)
    (s.path / ".git" / "hooks").symlink_to(aside)
    return None


@wild(fires=("checkout", "-q", "-b", "x"))
def hooks_in_the_tree(s: Source) -> Made:
    s.write("tools/post-checkout", s.trap.read_text())
    (s.path / "tools" / "post-checkout").chmod(0o755)
    s.first()
    s.config(core__hooksPath="tools")
    return None


@wild(fires=("status",))
def fsmonitor(s: Source) -> Made:
    s.first()
    s.config(core__fsmonitor=str(s.trap))
    return None


@wild(fires=("fetch", "ssh://nowhere.invalid/x"))
def ssh_command(s: Source) -> Made:
    s.first()
    s.config(core__sshCommand=str(s.trap), core__gitProxy=str(s.trap))
    s.git("config", "url.ssh://nowhere.invalid/.insteadOf", "/")
    s.git("config", f"url.ext::{s.trap} .pushInsteadOf", "/")
    return None


@wild(fires=("fetch", "origin"))
def a_transport_that_is_a_command(s: Source) -> Made:
    s.first()
    s.config(protocol__ext__allow="always", remote__origin__url=f"ext::{s.trap}")
    s.config(remote__origin__uploadpack=str(s.trap), remote__origin__vcs="ext")
    return None


@wild()
def pager_editor_and_aliases(s: Source) -> Made:
    s.first()
    s.config(core__pager=str(s.trap), core__editor=str(s.trap), sequence__editor=str(s.trap))
    s.config(alias__fetch=f"!{s.trap}", pager__log=str(s.trap), core__askPass=str(s.trap))
    return None


@wild()
def a_hook_of_upload_pack(s: Source) -> Made:
    s.first()
    s.config(uploadpack__packObjectsHook=str(s.trap), uploadpack__hideRefs="refs/tags")
    return None


@wild(fires=("status",))
def an_included_configuration(s: Source) -> Made:
    s.first()
    (s.root / "more").write_text(f"[core]\n\tfsmonitor = {s.trap}\n\tsshCommand = {s.trap}\n")
    s.config(include__path=str(s.root / "more"))
    s.git("config", f"includeIf.gitdir:{s.path}/.path", str(s.root / "more"))
    return None


@wild(fires=("status",))
def a_configuration_of_the_worktree(s: Source) -> Made:
    s.first()
    s.config(core__repositoryformatversion="1", extensions__worktreeConfig="true")
    (s.path / ".git" / "config.worktree").write_text(f"[core]\n\tfsmonitor = {s.trap}\n")
    return None


@wild(fires=("fetch", "."))
def a_command_for_the_refs_of_alternates(s: Source) -> Made:
    s.first()
    s.git("clone", "-q", ".", "../lender")
    (s.path / ".git" / "objects" / "info").mkdir(exist_ok=True)
    lender = s.root / "lender" / ".git" / "objects"
    (s.path / ".git" / "objects" / "info" / "alternates").write_text(f"{lender}\n")
    s.config(core__alternateRefsCommand=str(s.trap))
    return None


@wild()
def helpers_for_secrets(s: Source) -> Made:
    s.first()
    s.config(credential__helper=f"!{s.trap}", core__askPass=str(s.trap))
    s.git("config", "credential.https://x.credentialHelper", f"!{s.trap}")
    return None


@wild(fires=("-c", "user.name=x", "-c", "user.email=x@x", "tag", "-s", "-m", "x", "x", "HEAD"))
def a_program_that_signs(s: Source) -> Made:
    s.first()
    s.config(gpg__program=str(s.trap), gpg__ssh__program=str(s.trap))
    s.config(commit__gpgSign="true", tag__gpgSign="true", push__gpgSign="if-asked")
    s.config(user__signingKey="x", merge__verifySignatures="true")
    return None


@wild(fires=("show", "--ext-diff", "HEAD"))
def a_program_that_compares(s: Source) -> Made:
    s.first()
    s.config(
        diff__external=str(s.trap), diff__tool=str(s.trap), interactive__diffFilter=str(s.trap)
    )
    return None


@wild()
def a_worktree_that_is_elsewhere(s: Source) -> Made:
    s.first()
    s.config(
        core__worktree="/etc", core__attributesFile="/dev/zero", core__excludesFile="/dev/zero"
    )
    return None


# --- large ones ------------------------------------------------------------------------------------------------


@wild()
def many_files(s: Source) -> Made:
    count = 50_000 if LARGE else 2_000
    head = b"commit refs/heads/main\ncommitter a <a@x> 0 +0000\ndata 1\nx\n"
    files = (f"M 644 inline f/{n % 100}/{n}\ndata 8\n{n:08}\n" for n in range(count))
    s.git("fast-import", "--quiet", stdin=head + "".join(files).encode())
    return None


@wild()
def large_content(s: Source) -> Made:
    mib = 1024 if LARGE else 16
    for number in range(mib // 16):
        s.write(f"part{number}", os.urandom(16 << 20))
    s.commit()
    return None
