"""What an attempt is given: its order, its environment, and what must not be written down of it.

Rule 1: the environment is complete and minimal: the task's values, what this machine gives to its
agent (host/environment.py), and a capability for this task alone. A check speaks for nobody and
has none.
Rule 2: what it is told of what the fleet remembers is made here, when it begins; the journal has
its ids, and never its words.
Rule 3: the machine wins over the spec: a key must not be sent to an address that the spec names.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from muster.agent import policy as policies
from muster.agent import servers
from muster.agent.base import AgentEvent, AttemptOrder, environment
from muster.agent.catalogue import AgentEntry, which
from muster.agent.mask import Secrets
from muster.errors import Refused
from muster.fleet.capability import make_capability
from muster.git import untrusted_files
from muster.git.cache import Worktree
from muster.git.commit import Signature
from muster.limits import APPROVAL_MS_MAX, REVIEW_BYTES_MAX
from muster.memory.digest import NOTHING
from muster.memory.kinds import MemoryRead
from muster.memory.showing import Reader
from muster.node.attempts import inputs
from muster.node.attempts.workplace import CutOff
from muster.node.call.authorize import Authorizer
from muster.node.host import environment as environ
from muster.node.host.secret_store import SecretStore
from muster.node.runtime import Runtime
from muster.node.services import digests
from muster.node.services.showings import DigestTold
from muster.node.tasks import attempt_body
from muster.node.tasks.kept import kept_of
from muster.node.verb import Verb
from muster.task import review
from muster.task import values as values_of
from muster.task.duration import check_ms, work_ms
from muster.task.fold import TASK, TaskRow
from muster.task.instruction import StartAttempt
from muster.task.secret import wanted_of
from muster.task.template import told_of

# Where a shell finds what the fleet remembers.
MEMORY_FILE: Final = "MUSTER_MEMORY"
_NOT_KEPT: Final = "…[a prompt of which the remembered part was not found]"

GO_ON: Final = (
    "You were interrupted: this machine's daemon ended while you worked on this task, and all that "
    "you had started ended with it. Your folder is as you left it. Go on where you stopped, and "
    "finish the task that you were given."
)
BEGUN: Final = (
    "An earlier attempt at this task was interrupted. What it had done by then is in the current "
    "folder: look at it first, and go on from there."
)


class AttemptSetup:
    """What one attempt starts with. `hidden` is what must not be written down, by name."""

    def __init__(self, daemon: Runtime, start: StartAttempt) -> None:
        self.daemon = daemon
        self.start = start
        self.task, self.epoch = start.assign.task, start.assign.epoch
        self.agent = start.assign.agent
        self.template = start.open.template
        self.hidden: dict[str, str] = {}
        # The same, ready to hide it; what this machine's owner granted this attempt, by name.
        self.masks = Secrets({})
        self.granted: Mapping[str, str] = {}
        # Of what is hidden, the names of what is a secret whatever it looks like.
        self.sure: set[str] = set()
        # Of a review: where its verdict goes, where what it judges began and ended, and the files
        # that it changed.
        self.verdict: Path | None = None
        self.judged = ("", "")
        self.touched: frozenset[str] = frozenset()
        self._file: dict[str, str] = {}
        # What the fleet remembers for this work, as of then.
        self.remembered = NOTHING
        self._showing: MemoryRead | None = None

    async def remember(self) -> None:
        """Find out what its agent is told; others have their turn meanwhile."""
        core, told = self.daemon.core, told_of(self.template)
        if not told.reads:
            return
        actor, now_ms = f"{self.agent}@{core.name}", core.now.wall_ms
        work = digests.work_of(self.start.open, self.start.owner, actor)
        made = await digests.in_turns(digests.made(core, work, told.budget, now_ms))
        if made.text:
            reader = Reader(self.task, self.epoch)
            self.remembered = made
            self._showing = digests.showing(made, reader, told.budget, now_ms)
            # Before anything that its agent asks: what it may replace follows from it.
            self.daemon.post(DigestTold(self._showing, actor))

    def look(self) -> None:
        """Read what this machine gives and hides. Raises: Broken for an agents.env of no use."""
        home, machine = self.daemon.home, self.daemon.machine
        self._file = home.agent_variables()
        entries = self.daemon.effects.agents.values()
        offers = machine.config.mcp.values()
        named = [*machine.agent_variables, *(v for server in offers for v in server.variables)]
        self.hidden = environ.secrets(self.daemon.effects.environ, self._file, entries, named)
        self._hide(self._store().hidden())

    def take(self) -> None:
        """Read the secrets that its phase names. Blocks: a keychain may ask its person.

        Raises: Refused, Broken, NotFound or Unreachable naming the secret that it does not get.
        """
        wanted, now_ms = wanted_of(self.template), self.daemon.core.now.wall_ms
        if wanted.names and self.start.foreign:
            raise Refused("a task of another fleet gets no secret of this machine")
        taken = self._store().taken(wanted, self.agent, now_ms)
        self.granted = taken.given
        self._hide(taken.hidden)

    def _store(self) -> SecretStore:
        return SecretStore(self.daemon.home.path, self.daemon.effects.environ)

    def _hide(self, values: Mapping[str, str]) -> None:
        """Beside what is hidden: another value of the same name is hidden as well."""
        for name, value in values.items():
            mark = name
            while self.hidden.get(mark, value) != value:
                mark += "'"
            self.hidden[mark] = value
            self.sure.add(mark)
        self.masks = Secrets(self.hidden)

    def order(self, folder: Path, cut_off: CutOff | None = None) -> AttemptOrder:
        """What the agent is ordered to do, or to go on with where it was cut off.

        Raises: Malformed where a value cannot be handed on.
        """
        found = self.start.values
        text = str(self.template.get("do", ""))
        # What cannot be looked at afterwards is not begun: an agent's work costs money.
        values_of.command(str(self.template.get("check", "")), found)
        entry, plain = self.daemon.effects.agents.get(self.agent), self._is_plain()
        extra = self._environment(found, entry)
        # An agent knows the place from its prompt alone, and a shell hands it on to nobody: what
        # is judged, such as its tests, must not find where its own verdict goes.
        own = {review.VERDICT_FILE: str(self.verdict)} if plain and self.verdict else {}
        extra |= own
        if plain:
            # A variable would be handed on to every child, and there is a bound to how long one is.
            values_folder = inputs.folder_of(self.daemon, self.start)
            extra[MEMORY_FILE] = inputs.put(values_folder, "memory", self.remembered.text)
        mcp, file = self._servers(plain=plain), ""
        if mcp.acp:
            file = inputs.put(inputs.folder_of(self.daemon, self.start), "mcp", mcp.file)
        # It counts for its running attempt alone, which may wait for people beside its own time.
        until_ms = self.daemon.core.now.wall_ms + work_ms(self.template) + APPROVAL_MS_MAX
        seed, words = secrets.token_bytes(32), {"task": self.task, "agent": self.agent}
        may = tuple(verb.name for verb in self.daemon.core.verbs.values() if self._may(verb))
        token, capability = make_capability(seed, **words, verbs=may, until_ms=until_ms)
        extra["MUSTER_CAPABILITY"] = self.hidden["MUSTER_CAPABILITY"] = token
        self.masks = self.masks.beside({"MUSTER_CAPABILITY": token})
        self.daemon.core.part(Authorizer).allow_agent(capability, self.masks)
        # No check has it, and nothing that a spec says stands in its place.
        extra |= self.granted
        # What the agent is asked: the order, and what will be looked at when it is done.
        lines = self._prompt(text, found) if not plain else []
        expected = []
        if not plain and (deliver := self.template.get("deliver")):
            expected.append("Write these files in the current folder: " + ", ".join(deliver))
        if not plain and (check := self.template.get("check")):
            expected.append(f"When you are done this command must succeed: {check}")
        if cut_off is not None:
            lines.insert(0, BEGUN)
        # First in both: what the journal keeps of a prompt is what comes after it.
        known = [self.remembered.text] if not plain and self.remembered.text else []
        return AttemptOrder(
            task=self.task,
            epoch=self.epoch,
            agent=self.agent,
            cwd=str(folder),
            env=environment(self.daemon.effects.environ, extra),
            secrets=self.hidden,
            prompt="\n\n".join([*known, *lines, *expected]),
            go_on="\n\n".join([*known, GO_ON, *expected]),
            model=str(self.template.get("model", "")),
            mode=str(self.template.get("mode", "")),
            mcp=mcp.acp,
            mcp_file=file,
            mcp_toml=mcp.toml,
            mcp_json=mcp.json,
            mcp_env=mcp.env,
            resume=cut_off.session if cut_off is not None else "",
            resume_opened_ms=cut_off.opened_ms if cut_off is not None else 0,
            command=values_of.command(text, found) if plain else "",
            shell=self._shell(),
            shell_only=tuple(own),
            timeout_s=work_ms(self.template) / 1000,
            policy=policies.Policy(),
            ask_timeout_s=float(self.daemon.machine.config.approval_s),
        )

    def _servers(self, *, plain: bool) -> servers.Offered:
        """The MCP servers of its phase, as this machine's owner offers them. Raises: Broken."""
        names = () if plain else tuple(map(str, self.template.get("mcp") or ()))
        effects, offers = self.daemon.effects, self.daemon.machine.config.mcp
        source = {**effects.environ, **self._file}
        path = str(effects.environ.get("PATH", ""))
        return servers.offered(names, offers, source, lambda program: which(program, path))

    def kept(self, event: AgentEvent, hidden: Secrets) -> dict[str, Any]:
        """What the journal keeps of an event: no secret, and no word of what was remembered."""
        fields: dict[str, Any] = hidden.fields(event.fields)
        body = self._showing
        if event.kind != "agent.prompt" or body is None:
            return fields
        fields |= {"memory": body.shown, "sha256": body.sha256}
        if self._is_plain():
            return fields
        text, told = str(fields.get("text", "")), hidden.text(self.remembered.text)
        # Where it cannot be told from the rest, nothing is kept: it may have to be erased one day.
        own = text.removeprefix(told).lstrip() if text.startswith(told) else _NOT_KEPT
        return {**fields, "text": own}

    def _is_plain(self) -> bool:
        entry = self.daemon.effects.agents.get(self.agent)
        return entry is not None and entry.is_plain

    def _may(self, verb: Verb) -> bool:
        """Whether its capability names a verb: of what is known, what its order leaves it.

        None where another fleet asked: whatever that had its agent say here, or hand on, would be
        an agent's of this fleet. All that an agent needs a capability for is such.
        """
        told = told_of(self.template)
        left = told.reads if verb.auth == "local" else told.writes
        is_memory = verb.group == "Memory" or verb.name.startswith("memory.")
        return verb.agents and not self.start.foreign and (not is_memory or left)

    def settled_before(self) -> list[TaskRow]:
        """The tasks that made what we start from, and maybe others: of our run, and of earlier ones
        of which it kept phases.
        """
        opened, core, owner = self.start.open, self.daemon.core, self.start.owner
        if not opened.run or not opened.base:
            return []
        # A run may have many tasks, each of which asks; mostly there is one commit.
        one: dict[str, Any] = {} if " " in opened.base else {"commit_id": opened.base}
        runs = dict.fromkeys([opened.run, *kept_of(core.store, owner, opened.run).values()])
        return [
            row
            for run in runs
            for row in core.tables.rows(TASK, writer=owner, run=run, state="done", **one)
        ]

    async def look_at_work(self, tree: Worktree | None, folder: Path, signature: Signature) -> None:
        """Of a review: find out what is judged. Raises: Refused where there is no commit."""
        if not self.template.get("review"):
            return
        if tree is None:
            raise Refused("a review judges a commit, and this task has no repository")
        values, worktrees = self.start.open.values, self.daemon.effects.worktrees
        bases = attempt_body.bases(values.get("run", {}).get(review.BEGAN, ""), [])
        began, self.touched = await worktrees.against(tree, bases, signature)
        self.judged = (began, tree.base)
        # A name that what is judged cannot hold already.
        self.verdict = folder / f".muster-verdict-{secrets.token_hex(8)}.json"

    def said(self, hidden: Secrets) -> tuple[dict[str, str], str]:
        """The values of the verdict, without secrets, and its one line for people.

        Raises: Malformed where there is none; nothing else that is in the folder counts.
        """
        assert self.verdict is not None
        raw = untrusted_files.read(self.verdict, REVIEW_BYTES_MAX + 1)
        found = review.yielded(review.parse(raw), self.touched)
        said = {name: hidden.text(text) for name, text in found.items()}
        first = said["reasons"].partition("\n")[0]
        return said, f"{said['verdict']}: {first}" if first else said["verdict"]

    def _prompt(self, text: str, found: values_of.Values) -> list[str]:
        """The parts of what an agent is asked. Raises: Malformed."""
        own = [values_of.prompt(text, found)] if text else []
        before = self._rejection()
        if self.verdict is None:
            return own + before
        asked = values_of.prompt(str(self.template.get("asked", "")), found)
        phase = str(self.template.get("review", ""))
        began, _ = self.judged
        first = review.asked_of_reviewer(phase, asked, began)
        return [first, *before, *own, review.asked_for_verdict(str(self.verdict))]

    def _rejection(self) -> list[str]:
        """What was said of the round before, where there was one."""
        number = review.round_of(str(self.template.get("instance", "")))
        if number < 2 or not (names := self.template.get("reviewers")):
            return []
        given = self.start.values
        return [review.rejection(number, ((str(name), given.get(name, {})) for name in names))]

    def _of_review(self) -> dict[str, str]:
        """The variables of what is reviewed, and of a review."""
        if not self.template.get("reviewers"):
            return {}
        number = review.round_of(str(self.template.get("instance", "")))
        found = {review.ROUND: str(number)}
        for text in self._rejection():
            folder = inputs.folder_of(self.daemon, self.start)
            found[review.REJECTION_FILE] = inputs.put(folder, "rejection", text + "\n")
        if self.verdict is not None:
            found[review.AGAINST], found[review.JUDGED] = self.judged
        return found

    def check(self, folder: Path, check: str) -> AttemptOrder:
        """The command that must succeed afterwards. Raises: as `order`."""
        return AttemptOrder(
            task=self.task,
            epoch=self.epoch,
            agent="shell",
            cwd=str(folder),
            env=environment(self.daemon.effects.environ, self._environment(self.start.values)),
            secrets=self.hidden,
            command=values_of.command(check, self.start.values),
            shell=self._shell(),
            timeout_s=check_ms(self.template) / 1000,
        )

    def _environment(
        self, found: values_of.Values, entry: AgentEntry | None = None
    ) -> dict[str, str]:
        own: Mapping[str, Any] = self.template.get("env") or {}
        variables = values_of.environment(values_of.texts_of(self.template), found)
        for name, own_text in own.items():
            variables[name] = values_of.prompt(str(own_text), found)
            values_of.check_fits(name, variables[name], "name less in it")
        variables |= self._of_review()
        variables["MUSTER_HOME"] = str(self.daemon.home.path)
        variables["MUSTER_SOCK"] = self.daemon.home.socket
        variables["MUSTER_TASK"] = self.task
        return {**variables, **self._given(entry)}

    def of_machine(self) -> dict[str, str]:
        """The environment of its agent without a word of its spec."""
        entry = self.daemon.effects.agents.get(self.agent)
        return environment(self.daemon.effects.environ, {**self._given(entry), **self.granted})

    def _given(self, entry: AgentEntry | None) -> dict[str, str]:
        source = {**self.daemon.effects.environ, **self._file}
        return environ.given(source, entry, self.daemon.machine.agent_variables)

    def _shell(self) -> Literal["sh", "bash"]:
        return "bash" if self.template.get("shell") == "bash" else "sh"
