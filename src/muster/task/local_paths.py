"""Files of one machine that a phase on another machine could not see.

Rule 1: a phase may run on any machine that fits. So a path into somebody's home or onto a mounted
        disk is an error, unless the phase is pinned to the one machine that has it
        (`needs: {machine: studio}`).
Rule 2: temporary folders are free to use within a phase and never between two, unless both are
        pinned to the same machine: what one phase leaves for another is a deliverable.
Rule 3: a phase that names what another delivers comes after it. Without `after`, it would start
        from a commit without the file. Where the run has a repository, the file may be in it from
        the start: then it is a warning.

What counts as a path is deliberately narrow: `/usr/bin/env`, `/dev/null`, `/login` in a prompt and
`https://host/home/x` are none of these.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from muster.task.problem import shown
from muster.task.spec import Phase, Spec, listed

_END: Final = r"[^\s'\"`;|&()<>,]"
_PERSONAL: Final = re.compile(
    rf"(?<![\w./~$}}*-])/(?:home|Users|root|mnt|media|Volumes|srv|private)/{_END}+"
    rf"|(?<![\w./~-])~[a-z_][\w-]*/{_END}*|(?<![\w./~-])~/{_END}*"
    rf"|\$HOME\b{_END}*|\$\{{HOME\}}{_END}*|%USERPROFILE%{_END}*"
    rf"|(?<!\w)[A-Za-z]:[\\/](?!/){_END}+|\bfile://{_END}+"
)
_TEMPORARY: Final = re.compile(rf"(?<![\w./~$}}*-])/(?:tmp|var/tmp|dev/shm)/{_END}+")
_WORD: Final = re.compile(r"[\w./+@-]+")
# Longer texts than these hold no more paths than a person wants to read about.
_FOUND_MAX: Final = 20


class Finding(NamedTuple):
    """A local file: `key` is the key of the phase that names it."""

    phase: str
    key: str
    sentence: str
    warning: bool = False


def local_files(spec: Spec, before: Mapping[str, frozenset[str]], repo: str) -> Iterator[Finding]:
    """Every use of a file that may not be there. `before` has all prerequisites of a phase,
    near and far; `repo` is the repository it works in, "" without one.
    """
    for name, phase in spec.phases.items():
        for key, text in () if pinned(phase) or phase.by_human else phase.texts.items():
            for path in list(dict.fromkeys(m[0] for m in _PERSONAL.finditer(text)))[:_FOUND_MAX]:
                what = f"names {shown(path)}, a file of one machine; put it into the repository, "
                yield Finding(name, key, f"{what}or pin the phase with needs: {{machine: NAME}}")
    yield from _temporary(spec)
    yield from _deliverables(spec, before, repo)


def pinned(phase: Phase) -> str:
    """The one machine that a phase runs on, or ""."""
    machines = listed(phase.needs.machine) if phase.needs else ()
    return machines[0] if len(machines) == 1 else ""


def _temporary(spec: Spec) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for name, phase in spec.phases.items():
        if phase.by_human:
            continue
        for key, text in phase.texts.items():
            for path in dict.fromkeys(m[0] for m in _TEMPORARY.finditer(text)):
                other = first.setdefault(path, name)
                here = pinned(phase)
                if other == name or (here and here == pinned(spec.phases[other])):
                    continue
                sentence = (
                    f"names {shown(path)}, as {other} does, which may run on another machine; "
                    f"let {other} deliver it"
                )
                yield Finding(name, key, sentence)


def _deliverables(spec: Spec, before: Mapping[str, frozenset[str]], repo: str) -> Iterator[Finding]:
    makers: dict[str, list[str]] = {}
    for name, phase in spec.phases.items():
        for path in phase.deliverables:
            # A bare word such as `report` is more often a word of the prompt than a file.
            if "${" not in path and ("/" in path.rstrip("/") or "." in path):
                makers.setdefault(path.rstrip("/"), []).append(name)
    if not makers:
        return
    for name, phase in spec.phases.items():
        for key, text in phase.texts.items():
            named = (m[0].removeprefix("./").rstrip("./") for m in _WORD.finditer(text))
            for path in dict.fromkeys(word for word in named if word in makers):
                if name in makers[path] or before[name] & set(makers[path]):
                    continue
                maker = makers[path][0]
                if name in before[maker]:
                    what = f"{maker} delivers, which runs after this phase; read it in a later one"
                else:
                    what = f"{maker} delivers; add after: [{maker}]"
                yield Finding(name, key, f"reads {shown(path)}, which {what}", bool(repo))
