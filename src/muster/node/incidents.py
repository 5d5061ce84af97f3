"""What a person must see of this machine until it is over, and who looked at what."""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any, Final, Literal

from muster.errors import Denied
from muster.fleet import folds, kinds
from muster.fleet.acknowledgement import VERB, name_of, read
from muster.fleet.grant import ANYTHING
from muster.fleet.incident import Incident, Looked, Silence, Telling, gathered, is_shared
from muster.fleet.permanent import permanent
from muster.fleet.silence_fold import SILENCE_VERB
from muster.limits import FLAP_MS, NOTIFY_NEWS_MS, NOTIFY_OF_MACHINE_MAX
from muster.log.entry import Entry
from muster.log.stream import FLEET, StreamName
from muster.node import event as ev
from muster.node.replica.membership import Membership
from muster.store.sqlite import as_int
from muster.store.store import Store


class Noticed(ev.Event, frozen=True):
    """Something about this machine that a person must see; without a `title` it is over."""

    key: str
    title: str = ""


# As many as a key may have.
_KEY_CHARS_MAX: Final = 200
# What is over for longer than this nobody is told of any more.
_OVER_MS: Final = 24 * NOTIFY_NEWS_MS
# Silences of all people together, the newest: who needs more has no alarms.
_SILENCES_MAX: Final = 200
# What certain signers said, of incidents by their names or of all under a key.
_WORDS: Final = {
    "incident": "select distinct issued_ms, signer, note, incident, fork, about, key, until_ms "
    "from fleet_acknowledged where incident in (select value from json_each(?)) "
    "and signer in (select value from json_each(?)) order by 1, 2, 3",
    "key": "select distinct issued_ms, signer, note, incident, fork, about, key, until_ms "
    "from fleet_acknowledged where key in (select value from json_each(?)) "
    "and signer in (select value from json_each(?)) order by 1, 2, 3",
}
_CHAT_WORDS: Final = {
    "incident": "select distinct t_ms, account, workspace, incident, about, key "
    "from fleet_chat_acknowledged where incident in (select value from json_each(?)) "
    "and account in (select value from json_each(?)) order by 1, 2, 3",
    "key": "select distinct t_ms, account, workspace, incident, about, key "
    "from fleet_chat_acknowledged where key in (select value from json_each(?)) "
    "and account in (select value from json_each(?)) order by 1, 2, 3",
}


def name(row: folds.IncidentRow) -> str:
    """What an incident of this row is called where somebody acknowledges it."""
    return name_of(kinds.Told(row.key, str(row.stream), row.t_ms))


class Incidents:
    """The incidents of this machine, in its own stream; and what was said of everybody's."""

    def __init__(
        self, store: Store, membership: Membership, write: Callable[[str, Any], None]
    ) -> None:
        """`write` makes an entry as soon as we may write."""
        self._store, self._membership, self._write = store, membership, write
        # What was told and is not yet written.
        self._waiting = set[str]()

    def open(self, key: str, severity: str, title: str, detail: str = "") -> None:
        """Something that a person must see; told again under its key it is the same, once more.

        `<kind>:<object>` is a key under which every machine tells of the same (fleet/incident.py).
        Who is told, when and by what, follows from the severity (fleet/escalation.py).
        """
        about = {"key": key[:_KEY_CHARS_MAX], "severity": severity, "title": title[:500]}
        body = {**about, "detail": detail[:500]}
        self._write(kinds.INCIDENT_OPEN, body)
        if about["key"] not in self.own(about["key"]):
            self._waiting.add(about["key"])

    def close(self, key: str, reason: str) -> None:
        """It is over, whichever of our incarnations told of it; nothing where it is not open."""
        key = key[:_KEY_CHARS_MAX]
        row = self.own(key).get(key)
        if row is None and key not in self._waiting:
            return
        if row is not None and row.stream != self._membership.own(FLEET):
            # In a stream that ended nothing is closed any more: said again here, and over.
            self.open(key, row.severity, row.title)
        self._write(kinds.INCIDENT_CLOSE, {"key": key, "reason": reason[:500]})
        self._waiting.discard(key)

    def own(self, prefix: str = "", machine: str = "") -> dict[str, folds.IncidentRow]:
        """What is open of ours, or of that machine's, by its key, which begins so.

        Of the rows of a key the newest counts, whichever incarnation said it.
        """
        writer, own = machine or self._membership.machine, self._membership.own(FLEET)
        newest = dict[str, folds.IncidentRow]()
        opened = self._store.tables.rows(
            folds.INCIDENT, writer=writer, begins={"key": prefix[:_KEY_CHARS_MAX]}, open=1
        )
        for key in {row.key for row in opened}:
            rows = self._store.tables.rows(folds.INCIDENT, writer=writer, key=key)
            row = max(rows, key=lambda each: (each.stream == own, each.t_ms))
            if row.open:
                newest[key] = row
        return newest

    def is_open(self, key: str, machine: str = "") -> bool:
        """Whether we, or that machine, told of it and not yet that it is over."""
        key = key[:_KEY_CHARS_MAX]
        return (not machine and key in self._waiting) or key in self.own(key, machine)

    def noticed(self, event: Noticed) -> None:
        """What the daemon saw, or that it is gone."""
        if event.title:
            self.open(event.key, "warning", event.title)
        else:
            self.close(event.key, "it is gone")

    def on_acknowledgement(self, _stream: StreamName, entry: Entry) -> None:
        """What we told of a fork is over once an operator looked at it.

        Not what was told after that: anybody can say an old word again.
        """
        me, own = self._membership.machine, self._membership.own(FLEET)
        if permanent(entry, self._membership.roster, me) is None:
            return
        said = read(entry)
        signed_ms = said.signed(self._membership.fleet).issued_ms
        machine = said.what.stream.partition("/")[0]
        for key in (f"fork-{machine[:16]}", *(["incarnation"] if machine == me else [])):
            for row in self._store.tables.rows(folds.INCIDENT, stream=own, key=key, open=1):
                if row.t_ms <= signed_ms:
                    self.close(key, f"an operator looked at the fork: {said.note}")

    def acknowledged(self, names: Collection[str], now_ms: int) -> dict[str, Looked]:
        """Of each of these incidents the first word that counts, where there is one."""
        found = dict[str, Looked]()
        for _, _, name, looked in self._words("incident", names, now_ms):
            if not looked.until_ms or now_ms < looked.until_ms:
                found.setdefault(name, looked)
        return found

    def looked(self, rows: Collection[folds.IncidentRow], now_ms: int) -> dict[str, Looked]:
        """Of each of these, by its name: the word that counts, or when the last one ended.

        Besides a word about exactly this there counts one with a time, while it lasts, whatever is
        told meanwhile; and what was said of another machine's telling of the same counts for what
        was told before it was said.
        """
        open_ones = [row for row in rows if row.open]
        found = self.acknowledged({name(row) for row in open_ones}, now_ms)
        by_key = dict[str, list[tuple[str, Looked]]]()
        for key, machine, _, word in self._words("key", {row.key for row in open_ones}, now_ms):
            by_key.setdefault(key, []).append((machine, word))
        for row in open_ones:
            if (called := name(row)) in found:
                continue
            for machine, word in by_key.get(row.key, ()):
                if machine != row.stream.machine and not is_shared(row.key):
                    continue
                if now_ms < word.until_ms or (not word.until_ms and row.t_ms <= word.issued_ms):
                    if machine != row.stream.machine or word.until_ms:
                        found[called] = word
                elif word.until_ms and not found.get(called, Looked()).by:
                    found[called] = Looked(until_ms=word.until_ms)
        return found

    def _words(
        self, column: Literal["incident", "key"], values: Collection[str], now_ms: int
    ) -> Iterator[tuple[str, str, str, Looked]]:
        """The words that count, the oldest first: key, whose telling, the incident's name."""
        if not values:
            return
        roster = self._membership.roster
        granted = (g.grant.to for g in roster.grants if g.grant.verb in (VERB, ANYTHING))
        # Of nobody else: anybody can sign, as often as he likes.
        keys = json.dumps(list(roster.operators_ever.union(granted)))
        rows = self._store.tables.query(_WORDS[column], (json.dumps(list(values)), keys))
        words = list[tuple[str, str, str, Looked]]()
        for issued_ms, signer, note, incident, fork, about, key, until_ms in rows:
            who, named = str(signer), str(incident)
            if self._counts(who, named, now_ms, fork=fork == 1):
                said = str(note), as_int(issued_ms), as_int(until_ms)
                machine = str(about).partition("/")[0]
                words.append((str(key), machine, named, Looked(roster.speaker(who), *said)))
        words += self._chat_words(column, values, now_ms)
        yield from sorted(words, key=lambda word: word[-1].issued_ms)

    def _chat_words(
        self, column: Literal["incident", "key"], values: Collection[str], now_ms: int
    ) -> Iterator[tuple[str, str, str, Looked]]:
        """As `_words`, of accounts of chats, by the word of the machine that heard them."""
        roster = self._membership.roster
        what = (json.dumps(list(values)), json.dumps(list(roster.chats)))
        for t_ms, account, workspace, incident, about, key in self._store.tables.query(
            _CHAT_WORDS[column], what
        ):
            who, named = str(account), str(incident)
            if roster.chats[who].workspace == workspace and self._may(who, VERB, named, now_ms):
                machine = str(about).partition("/")[0]
                yield str(key), machine, named, Looked(roster.speaker(who), "", as_int(t_ms))

    def _counts(self, key: str, incident: str, now_ms: int, *, fork: bool) -> bool:
        roster = self._membership.roster
        if fork or key in roster.operators_ever:
            return roster.acknowledged(key, incident)
        return self._may(key, VERB, incident, now_ms)

    def _may(self, key: str, verb: str, object: str, now_ms: int) -> bool:
        roster = self._membership.roster
        if key in roster.operators:
            return True
        with suppress(Denied):
            return bool(roster.decide(key, verb, object, now_ms))
        return False

    def silences(self, now_ms: int) -> list[Silence]:
        """Those that count, and that ended of late; of equal ones the one that was said last."""
        roster = self._membership.roster
        granted = (g.grant.to for g in roster.grants if g.grant.verb in (SILENCE_VERB, ANYTHING))
        rows = self._store.tables.query(
            "select distinct issued_ms, signer, fits, until_ms, why from fleet_silence "
            "where signer in (select value from json_each(?)) order by 1 desc, 2 limit ?",
            (json.dumps(list(roster.operators.keys() | set(granted))), _SILENCES_MAX),
        )
        found = dict[str, Silence]()
        for _, signer, fits, until_ms, why in rows:
            who, match = str(signer), str(fits)
            if match not in found and self._may(who, SILENCE_VERB, match, now_ms):
                found[match] = Silence(match, as_int(until_ms), roster.speaker(who), str(why))
        return [each for each in found.values() if each.until_ms > now_ms - FLAP_MS]

    def gathered(self, now_ms: int) -> list[Incident]:
        """What the fleet is told of now, each machine's newest; and what is over of late."""
        tellings, names = list[Telling](), dict[str, str]()
        for writer in sorted({stream.machine for stream in self._store.log.streams()}):
            if writer in self._membership.roster.revoked:
                continue
            names[writer] = self._membership.name_of(writer)
            rows = self._store.tables.rows(
                folds.INCIDENT, writer=writer, order=("-open", "-t_ms"), limit=NOTIFY_OF_MACHINE_MAX
            )
            newest = dict[str, folds.IncidentRow]()
            for row in rows:
                if row.key not in newest or newest[row.key].t_ms < row.t_ms:
                    newest[row.key] = row
            rows = [row for row in newest.values() if row.open or row.t_ms > now_ms - _OVER_MS]
            looked = self.looked(rows, now_ms)
            tellings += (_telling(row, looked.get(name(row), Looked())) for row in rows)
        return gathered(tellings, self.silences(now_ms), names)


def _telling(row: folds.IncidentRow, looked: Looked) -> Telling:
    return Telling(
        row.stream.machine, name(row), row.key, bool(row.open), row.severity, row.title,
        row.detail, row.flaps, row.opened_ms, row.since_ms, row.t_ms, looked,
        row.grave_ms,
    )  # fmt: skip
