"""`muster new`: a spec for the project at hand, from a template.

Rule 1: nothing of the project is run, and nothing is guessed in silence: what was found is in the
spec with the reason, and so is what was not.
Rule 2: nobody is asked anything, and no file is replaced without --force.
Rule 3: without a daemon a spec is written all the same, and says what could not be known.
"""

import asyncio
import contextlib
import os
import re
import tempfile
import textwrap
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from muster import umask
from muster.agent import catalogue
from muster.errors import Conflict, Malformed, MusterError, NotFound, Unreachable, unable
from muster.git import command as git
from muster.node.host.facts import TOOLS
from muster.task import project
from muster.task.spec import check_nameable
from muster.task.text_types import NAME
from muster.verbs.declaration import Context, Request, opt, pos, verb
from muster.verbs.project import Looked, look_at
from muster.verbs.template import USUAL, Template, filled, load

_ASSUMED_AGENT: Final = "claude"
_REPOSITORIES_TRIED: Final = 16
_UNTESTED: Final = "echo 'say here how this project is tested' >&2\nexit 1"
_WIDTH: Final = 96
_PARTS_SHOWN: Final = 8
# The first commit of a long history takes a while to find.
_GIT_MS: Final = 10_000


class New(Request, frozen=True):
    name: Annotated[str, pos("what the spec, and each run of it, is called")]
    template: Annotated[
        str, opt(f"the pattern (default: {USUAL}); `muster template list`", kind="template")
    ] = ""
    repo: Annotated[
        str, opt("a repository of the fleet, instead of the folder you are in", kind="repository")
    ] = ""
    agent: Annotated[
        str, opt("who does the work, instead of the agents that were found", kind="agent")
    ] = ""
    to: Annotated[str, opt("the file (default: NAME.yaml)", kind="place")] = ""
    print: Annotated[bool, opt("print the spec and write nothing")] = False
    force: Annotated[bool, opt("replace the file")] = False


class Written(Struct, frozen=True):
    """`found` is what was found, `missing` what a person has to do before it runs.

    `file` is "" where it was only to be shown.
    """

    file: str
    name: str
    template: str
    found: list[str]
    missing: list[str]
    spec: str


class _Fleet(NamedTuple):
    """What the daemon says: the machines that have facts, and the name of this one."""

    machines: list[dict[str, Any]]
    here: str

    def having(self, what: str) -> dict[str, list[str]]:
        """The machines that have each agent, or repository, that a spec can name.

        What a machine says of itself may be anything, and goes into a file.
        """
        found: dict[str, list[str]] = {}
        for machine in self.machines:
            for name in filter(re.compile(NAME).fullmatch, machine["facts"][what]):
                found.setdefault(name, []).append(str(machine["name"]))
        return found


class _Place(NamedTuple):
    """Where the work is: a repository's name ("" for none), what it says, where a person stands."""

    repo: str
    looked: Looked
    within: str = ""


@verb("new", auth="local", runs="client", group="Work", harmless=True)
def new(context: Context, ask: New) -> Written:
    """Write a spec for your project, from a template.

    It looks how the project is tested, and which agents the fleet has; nothing is run.

        muster new tidy
        muster new audit --template swarm --repo main --to audit.yaml
        muster new fix --template race --agent codex --print
    """
    check_nameable(ask.name, "the spec")
    template, found, missing = load(ask.template or USUAL), list[str](), list[str]()
    if ask.repo and not template.repository:
        raise Malformed(f"the template {template.name} works in no repository; leave --repo out")
    file = Path(ask.to or f"{ask.name}.yaml")
    if not ask.print and not ask.force and os.path.lexists(file):
        raise Conflict(f"{file} is there already; take another --to, or --force to replace it")
    fleet = _fleet(context, missing)
    words = {"name": ask.name, "agent": _agent(fleet, ask.agent, found, missing)}
    words["machine"] = _machine(fleet, template, missing)
    if template.repository:
        place = _place(context, fleet, ask, found, missing)
        words |= {"repo": place.repo, "folders": place.looked.folders}
        words |= _tests(place, fleet, template, found, missing)
    spec = filled(template.text, words, _header(ask.name, file, template, found, missing))
    if not ask.print:
        _write(file, spec, force=ask.force)
    return Written("" if ask.print else str(file), ask.name, template.name, found, missing, spec)


def _fleet(context: Context, missing: list[str]) -> _Fleet | None:
    try:
        machines = [
            m for m in context.ask("machines", {}) if m["facts"] and m["state"] != "revoked"
        ]
        return _Fleet(machines, str(context.ask("status", {})["name"]))
    except (Unreachable, NotFound) as error:
        missing.append(f"the fleet was not asked: {error}")
        return None


def _agent(fleet: _Fleet | None, wanted: str, found: list[str], missing: list[str]) -> str:
    """The agents for the work, as a spec writes them."""
    if wanted:
        check_nameable(wanted, "the agent")
    having = fleet.having("agents") if fleet else {}
    agents = {name: on for name, on in sorted(having.items()) if name not in catalogue.PLAIN}
    if fleet and wanted and wanted not in having:
        missing.append(f"no machine has the agent {wanted}: `muster doctor` says how one gets it")
    elif fleet and not wanted and not agents:
        missing.append(
            f"no machine has an agent yet, {_ASSUMED_AGENT} stands for it: `muster doctor` says "
            "how a machine gets one"
        )
    elif not fleet and not wanted:
        missing.append(f"which agents there are is not known, {_ASSUMED_AGENT} stands for them")
    if agents and not wanted:
        found += [f"agent {name} on {', '.join(on)}" for name, on in agents.items()]
        return next(iter(agents)) if len(agents) == 1 else f"[{', '.join(agents)}]"
    return wanted or _ASSUMED_AGENT


def _machine(fleet: _Fleet | None, template: Template, missing: list[str]) -> str:
    """The one machine that a template is about: this one."""
    if fleet is None and "<machine>" in template.text:
        missing.append("the machine with the data is not known: write its name for this-machine")
    return fleet.here if fleet else "this-machine"


# --- the repository and its project


def _place(
    context: Context, fleet: _Fleet | None, ask: New, found: list[str], missing: list[str]
) -> _Place:
    """The repository to work in, and what it says of itself. Raises: NotFound, Unreachable."""
    if ask.repo:
        check_nameable(ask.repo, "the repository")
    if ask.repo and fleet:
        looked = msgspec.convert(context.ask("repo.project", {"repo": ask.repo}), Looked)
        found.append(f"repository {ask.repo} of the fleet")
        return _Place(ask.repo, looked)
    here = Path.cwd()
    root = next((each for each in (here, *here.parents) if (each / ".git").exists()), here)
    looked, within = look_at(root), "" if root == here else str(here.relative_to(root))
    if ask.repo:
        missing.append("what follows is of the folder you were in")
        return _Place(ask.repo, looked, within)
    known, why = _known(context, fleet, root) if fleet else ("", "")
    if known:
        found.append(f"repository {known} of the fleet, {why}")
        return _Place(known, looked, within)
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in root.name.lower())
    name = name.strip("-")[:40] or "main"
    what = "" if (root / ".git").exists() else ", once it is one of git"
    add = f"muster repo add {name} {os.path.relpath(root, here)}{what}"
    missing.append(f"the fleet has no repository of this folder: {add}")
    return _Place(name, looked, within)


def _known(context: Context, fleet: _Fleet, root: Path) -> tuple[str, str]:
    """The repository of the fleet that this folder is of, and how that is seen."""
    addresses, commits = _origins(root), _commits(root)
    names = sorted(fleet.having("repositories"), key=lambda name: (name != root.name, name))
    for name in names[:_REPOSITORIES_TRIED]:
        # A repository whose machine does not answer is compared by its commits only.
        with contextlib.suppress(MusterError):
            origin = str(context.ask("repo.origin", {"name": name})["origin"])
            if origin and (origin == str(root) or origin in addresses):
                return name, "which has the same origin" if origin in addresses else "from here"
        if any(each.startswith("muster::") and each.endswith(f"/{name}") for each in addresses):
            return name, "which this folder is a clone of"
        for commit in commits:
            # It has not this commit, or cannot be asked: the next one may be the one.
            with contextlib.suppress(MusterError):
                context.ask("check.base", {"base": commit, "repo": name, "kept": True})
                return name, "which has this folder's commits"
    return "", ""


def _origins(root: Path) -> list[str]:
    """Where the person's folder fetches from."""
    lines = _git(root, "config", "--get-regexp", r"^remote\..*\.url$")
    return [line.partition(" ")[2] for line in lines]


def _commits(root: Path) -> list[str]:
    """The first commit of its history, and the newest."""
    first = _git(root, "rev-list", "--max-parents=0", "HEAD")
    return [*first[-1:], *_git(root, "rev-parse", "--verify", "-q", "HEAD")]


def _git(root: Path, *words: str) -> list[str]:
    """The lines that git says of the person's folder; none where it says nothing in time."""
    if not (root / ".git").exists():
        return []
    try:
        asked = git.run_async(words, root, timeout_ms=_GIT_MS, codes=(0, 1, 128))
        answer = asyncio.run(asked)
    except MusterError:
        return []
    return answer.text.splitlines() if answer.code == 0 else []


def _tests(
    place: _Place, fleet: _Fleet | None, template: Template, found: list[str], missing: list[str]
) -> dict[str, str]:
    """How the project is tested, and what a machine needs for it, as a spec writes them."""
    looked, within = place.looked, place.within
    command, why = project.how_tested(looked.parts, within)
    part = project.part_of(looked.parts, within)
    found += [f"{each.folder or 'the project'}: {', '.join(each.languages)}"
              for each in looked.parts if each.languages][:_PARTS_SHOWN]  # fmt: skip
    missing += [f"{doubt}" for each in looked.parts for doubt in each.doubts][:_PARTS_SHOWN]
    if "<test>" in template.text and command:
        pairs = zip(command.splitlines(), why, strict=True)
        found += [f"tests: {line} ({because})" for line, because in pairs]
    elif "<test>" in template.text:
        missing.append("no command that runs the tests was found: write it where `exit 1` stands")
    if "<folders>" in template.text:
        found.append(f"folders that are alike: {looked.folders}")
    tools = dict(part.tools) if part else {}
    needs = ", ".join(f'{name}: "{r}"' for name, r in tools.items() if name in TOOLS)
    unasked = [name for name in tools if name not in TOOLS]
    if needs:
        found.append(f"tools: {needs}")
    if unasked:
        missing.append(f"machines do not say whether they have {', '.join(unasked)}: make sure")
    return {"test": command or _UNTESTED, "needs": f"{{tools: {{{needs}}}}}" if needs else ""}


# --- the file


def _header(
    name: str, file: Path, template: Template, found: list[str], missing: list[str]
) -> list[str]:
    """The comment at the top: what this is, and what it was made of."""
    lines = [f"{name}: {template.title}", ""]
    lines += [f"Written by `muster new` from the template {template.name}; change what you like."]
    lines += _listed("What was found:", found) + _listed("What you have to do:", missing)
    steps = [f"{phase}: {what}" for phase, what in template.steps.items()]
    lines += ["", *_listed("What happens:", steps), ""]
    return [*lines, f"`muster check {file.name}` says what is wrong with it."]


def _listed(title: str, lines: list[str]) -> list[str]:
    wrapped = [part for line in lines for part in textwrap.wrap(
        line, _WIDTH, initial_indent="  ", subsequent_indent="      ", break_long_words=False
    )]  # fmt: skip
    return [title, *wrapped] if lines else []


def _write(file: Path, text: str, *, force: bool) -> None:
    """The file, whole or not at all. Raises: Conflict where it is there, and what the disk says."""
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with open(handle, "w", encoding="utf-8") as out:
                # It is the person's and not ours.
                os.fchmod(handle, 0o666 & ~umask.of_attempts())
                out.write(text)
            if force:
                os.replace(beside, file)
            else:
                os.link(beside, file)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
    except FileExistsError as error:
        raise Conflict(f"{file} is there already; take another --to, or --force") from error
    except OSError as error:
        raise unable(f"{file} cannot be written: {error.strerror}", error) from error
