"""What of a context folder is left out: by default, and as a file in it says.

Rule 1: the file is synced like any other, so it says nothing about what makes a machine obey:
        `LOCKED` is left out whatever it says.
Rule 2: what is left out is neither read nor written: here, and on whoever hears of it.
Rule 3: case does not matter: some disks do not know it.

A line is one pattern: a name (`*.pyc`, anywhere), or a path from the folder's top (`docs/build`).
`!` before it takes an earlier one back, `#` begins a remark.
"""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from muster import limits
from muster.context.path import TEMPORARY
from muster.errors import Malformed

# The file in a folder that says what else is left out.
IGNORE_FILE: Final = ".musterignore"
# What tells programs what to do on this machine, what lets somebody in, and what is our own: a name
# anywhere, or several that lie in each other.
LOCKED: Final = (
    # Ours, and git's.
    f"{TEMPORARY}*", ".git", ".gitconfig", ".gitmodules", ".git-credentials", "hooks", "hooks.json",
    ".husky", ".githooks", "lefthook.y*ml", ".lefthook.y*ml", ".pre-commit-config.yaml",
    # What agent programs and editors obey.
    "settings*.json", ".mcp.json", "mcp.json", "mcp_config.json", ".claude.json", ".claude/plugins",
    ".claude/shell-snapshots", ".codex/config.toml", ".codex/rules", "opencode.json*", ".opencode",
    ".aider*", ".continue", ".gemini/extensions", ".vscode", ".idea", ".devcontainer",
    "*.code-workspace", ".vimrc", ".gvimrc", ".exrc", ".nvimrc", ".nvim.lua", ".config/nvim",
    ".emacs", ".emacs.d", ".dir-locals.el",
    # What shells, sessions and the system begin.
    ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile",
    ".zshrc", ".zshenv", ".zprofile", ".zlogin", ".zlogout", ".kshrc", ".cshrc", ".tcshrc",
    ".login", ".inputrc", "config.fish", "fish/conf.d", ".xprofile", ".xinitrc", ".xsession*",
    ".pam_environment", ".tmux.conf", ".screenrc", ".gdbinit", ".pythonrc*", ".pythonstartup",
    "sitecustomize.p*", "usercustomize.p*", ".mise.toml", "mise.toml", ".config/autostart",
    "*.desktop", ".config/systemd", "library/launchagents", ".curlrc", ".wgetrc",
    # What lets somebody in.
    ".env*", "*.pem", "*.key", "*.seed", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx",
    ".ssh", "authorized_keys*", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".gnupg", ".aws",
    ".azure", ".config/gcloud", ".kube", ".docker", ".cargo", ".m2", ".terraform.d",
    ".terraformrc", ".netrc", "_netrc", ".npmrc", ".yarnrc*", ".pypirc", ".pgpass", ".my.cnf",
    ".mylogin.cnf", ".s3cfg", ".boto", ".htpasswd", ".vault-token", ".credentials*",
    "credentials*", "auth.json", "gh/hosts.yml", "share/keyrings",
)  # fmt: skip
DEFAULT: Final = (
    "node_modules", "__pycache__", ".venv", "target", "build", "dist", "*.pyc", ".DS_Store",
    "Thumbs.db", "desktop.ini", "*~", "*.swp", "*.swo", "*.swx", "4913", ".#*", "#*#", "*.tmp",
    "___jb_*___", "id_*", "*.sqlite*", "*.db-wal", "*.db-shm", "*.sock", "sessions",
)  # fmt: skip
# Folders in which programs keep what they obey beside what people write: none is synced whole.
PROGRAMS: Final = frozenset(
    {".claude", ".codex", ".gemini", ".cursor", ".config", ".local", "library", "appdata"}
)  # fmt: skip


def locked_part(parts: Sequence[str]) -> str:
    """The name in a path that is left out whatever anybody says, "" where there is none."""
    folded = [part.casefold() for part in parts]
    for at, part in enumerate(folded):
        if _ANY_LOCKED.match(part):
            return parts[at]
        if not _ANY_FIRST.match(part):
            continue
        for names in _LOCKED_WAYS:
            way = folded[at : at + len(names)]
            if len(way) == len(names) and all(map(_matched, names, way)):
                return "/".join(parts[at : at + len(names)])
    return ""


def _matched(pattern: re.Pattern[str], part: str) -> bool:
    return pattern.match(part) is not None


class Pattern(NamedTuple):
    """One line: what it matches, part by part; whether it is a path, and takes back."""

    parts: tuple[re.Pattern[str], ...]
    anchored: bool
    back: bool


class Ignore:
    """What a folder leaves out. Made of the lines of its file; bad ones count for nothing.

    With `only` nothing else at its top is synced, as of a folder in which programs keep more.
    `above` is where the folder lies: a file may be what a program obeys because of that.
    """

    def __init__(
        self, lines: Iterable[str] = (), only: Iterable[str] = (), above: Sequence[str] = ()
    ) -> None:
        self._above = tuple(above[-_WAY_MAX:])
        self._only = frozenset(name.casefold() for name in only)
        # Which lines leave nothing out, and why; "" where all are patterns.
        found, self.unread = _readable(lines)
        self._others = [Pattern((_ANY_DEFAULT,), anchored=False, back=False), *found]

    def leaves_out(self, path: str) -> bool:
        """Whether a path, or a folder above it, is left out."""
        # What is below a folder that is left out is never looked at: no line takes it back.
        parts = path.casefold().split("/")
        if locked_part((*self._above, *parts)):
            return True
        if self._only and parts[0] not in self._only and path != IGNORE_FILE:
            return True
        return any(self._last_word(parts[: n + 1]) for n in range(len(parts)))

    def _last_word(self, parts: list[str]) -> bool:
        found = False
        for each in self._others:
            if found == each.back and _matches(each, parts):
                found = not each.back
        return found


def read_pattern(line: str) -> Pattern:
    """What one line says. Raises: Malformed."""
    text = line.strip().removeprefix("!").removesuffix("/**").rstrip("/")
    if not text or len(line) > limits.CONTEXT_IGNORE_CHARS_MAX or not text.isprintable():
        raise Malformed(f"{line[:60]!r} is no pattern: write a name, as in *.log, or a path")
    parts = text.removeprefix("/").split("/")
    if "**" in text or any(part in ("", ".", "..") for part in parts):
        raise Malformed(
            f"{line[:60]!r} is no pattern: `*` stays within a name, and no path goes up"
        )
    compiled = tuple(re.compile(fnmatch.translate(part.casefold())) for part in parts)
    return Pattern(compiled, "/" in text, line.strip().startswith("!"))


def _readable(lines: Iterable[str]) -> tuple[list[Pattern], str]:
    """The patterns of a file that anybody may have written, and which of its lines are none."""
    found, why, more = list[Pattern](), "", 0
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            if len(found) >= limits.CONTEXT_IGNORE_LINES_MAX:
                raise Malformed(f"a list has at most {limits.CONTEXT_IGNORE_LINES_MAX} patterns")
            found.append(read_pattern(line))
        except Malformed as error:
            more += bool(why)
            why = why or f"line {number} leaves out nothing: {error}"
    return found, f"{why}; and so do {more} more" if more else why


def _matches(pattern: Pattern, parts: list[str]) -> bool:
    if not pattern.anchored:
        return bool(pattern.parts[0].match(parts[-1]))
    pairs = zip(pattern.parts, parts, strict=False)
    return len(parts) == len(pattern.parts) and all(each.match(part) for each, part in pairs)


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(name.casefold()) for name in names))


_ANY_LOCKED: Final = _any_of(name for name in LOCKED if "/" not in name)
_LOCKED_WAYS: Final = tuple(
    tuple(_any_of([name]) for name in way.split("/")) for way in LOCKED if "/" in way
)
# What such a way begins with: nearly no name does.
_ANY_FIRST: Final = _any_of(name.partition("/")[0] for name in LOCKED if "/" in name)
# Of where a folder lies so much is looked at: what is locked for being a name was refused there.
_WAY_MAX: Final = max(map(len, _LOCKED_WAYS)) - 1
_ANY_DEFAULT: Final = _any_of(DEFAULT)
