"""Folders of agent programs that people want on every machine: their names, places and contents.

Rule: where an agent program keeps something is asked of what it wrote itself, never computed from
a formula that it may change.
"""

import json
from pathlib import Path
from typing import Final, Literal, NamedTuple

from muster.errors import Malformed, NotFound

Preset = Literal["", "claude-memory", "skills", "agents"]
# The lines of a transcript that say where a session ran are among its first; each is bounded.
_LINES_MAX: Final = 50
_LINE_BYTES_MAX: Final = 64 * 1024
_TRANSCRIPTS_MAX: Final = 20


class Chosen(NamedTuple):
    """A folder, what it is called in the fleet, and the only names of it that are synced."""

    name: str
    path: Path
    only: tuple[str, ...] = ()


def chosen(preset: Preset, path: str, name: str, home: Path) -> Chosen:
    """What a person means. Raises: NotFound, Malformed."""
    if path.startswith("~/"):
        path = str(home / path[2:])
    if preset == "claude-memory":
        if not path:
            raise Malformed(
                "--preset claude-memory needs the folder of a checkout: its memory is meant"
            )
        checkout = _root_of(Path(path).resolve())
        folder = _claude_project(checkout, home / ".claude" / "projects") / "memory"
        folder.mkdir(exist_ok=True)
        return Chosen(name or f"claude-memory.{_word(checkout.name)}", folder)
    if preset == "skills":
        return Chosen(name or "skills", Path(path or home / ".claude" / "skills"))
    if preset == "agents":
        only = ("AGENTS.md", "CLAUDE.md")
        return Chosen(name or "agents", Path(path or home / ".claude"), only)
    if not path:
        raise Malformed("say which folder: muster context add ~/notes")
    return Chosen(name or _word(Path(path).name), Path(path))


def _root_of(path: Path) -> Path:
    """The checkout that a folder is in: its memory is one, wherever in it a session began."""
    return next((each for each in (path, *path.parents) if (each / ".git").exists()), path)


def _claude_project(checkout: Path, projects: Path) -> Path:
    """Where Claude Code keeps what belongs to a checkout: the folder of its sessions at its root.

    Tried with 2.1: a session below the root has a folder of its own, and no memory in it.
    """
    folders = sorted(projects.iterdir()) if projects.is_dir() else []
    for folder in folders:
        newest = sorted(folder.glob("*.jsonl"), key=lambda p: p.stat().st_mtime, reverse=True)
        for transcript in newest[:_TRANSCRIPTS_MAX]:
            if _ran_in(transcript) == str(checkout):
                return folder
    raise NotFound(
        f"Claude Code had no session in {checkout} yet, so nobody knows where its memory lies: "
        f"say `claude -p hello` there once (looked at {projects})"
    )


def _ran_in(transcript: Path) -> str:
    """The folder that a transcript says its session ran in; "" where it says none."""
    try:
        with transcript.open("rb") as file:
            for _ in range(_LINES_MAX):
                line = file.readline(_LINE_BYTES_MAX)
                if not line:
                    break
                try:
                    said = json.loads(line)
                except ValueError:
                    # A line of another program's that is still being written, or has another form.
                    continue
                if isinstance(said, dict) and isinstance(said.get("cwd"), str):
                    return str(said["cwd"])
    except OSError:
        # A proposal only: without it the person names the folder.
        pass
    return ""


def _word(text: str) -> str:
    """A name as folders have it in the fleet, made of one as they have it on a disk."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")
    return kept[:40] or "folder"
