"""Every promise Muster makes, as a sentence. A test names the promise it proves with `@proves(id)`.

`test_requirements.py` checks both ways: a promise without a test fails the build, and so
does a test that names an unknown promise.
"""

from typing import Final

PROMISES: Final[dict[str, str]] = {
    # --- log
    "log.admit-limits": "A segment of another stream, or a larger one than is allowed, is refused.",
    "log.admit-frozen": "A frozen stream does not grow on either branch.",
    "log.admit-diverged": (
        "A genuine seal that does not fit what is held is reported as a possible fork, never taken or dropped."
    ),
    "log.admit-seal": (
        "Entries count only where they lead to the root that the seal signs, itself or by a consistency proof."
    ),
    "log.admit-signer": (
        "A segment that the stream's own machine did not seal and write is refused and changes nothing."
    ),
    "log.admit-gap": (
        "A segment that begins beyond what is held is not taken; the answer says from where to ask."
    ),
    "log.admit-duplicates": (
        "Entries that are held already are skipped by position, however late and often they arrive."
    ),
    "log.admit-takes": (
        "A segment that follows what is held, under a genuine seal, is taken as far as it is new."
    ),
    "log.fold-body": (
        "A fold reads a body only through a check; an erased or unreadable one is skipped with a reason."
    ),
    "log.vectors-refused": "Every frozen vector of a wrong form is refused.",
    "log.vectors-accepted": "Every frozen vector is read, and written again, byte for byte.",
    "log.vectors-frozen": "The test vectors are the bytes that were frozen.",
    "log.verifier-revocation": (
        "The verifier names entries beyond a revocation's cut, and lets a revoked machine vouch for nothing."
    ),
    "log.verifier-names-documents": (
        "The verifier names a manifest or machine record that does not hold, and causes left out."
    ),
    "log.verifier-names-seals": (
        "The verifier names forks, missing, forged and inconsistent seals and cosigns."
    ),
    "log.verifier-names-entries": (
        "The verifier names the stream and the place of a changed, missing, repeated or swapped entry."
    ),
    "log.verifier-every-byte": (
        "The verifier finds any changed or inserted byte anywhere in an export, and never crashes."
    ),
    "log.verifier-accepts": (
        "The stand-alone verifier accepts an honest export, without Muster, and states the exposure window."
    ),
    "log.segment-total": (
        "Arbitrary or changed segment bytes raise nothing but a refusal or read as another segment."
    ),
    "log.segment-strict": (
        "A segment that is cut, out of order, of mixed streams or with a changed header is refused."
    ),
    "log.segment-bounded": "A segment beyond the limits is neither written nor read.",
    "log.segment-weighs": "Entries whose weights fit the limit make a segment that fits the limit.",
    "log.segment-round-trip": (
        "A segment comes back from its bytes, with erased bodies and without entries too."
    ),
    "log.cosign-refuses": (
        "A cosign that is changed, of another fleet, machine, time or key is refused."
    ),
    "log.cosign-strengths-apart": (
        "A witness's seen cannot be passed off as a receipt's held, nor the other way round."
    ),
    "log.cosign-round-trip": (
        "A cosign opens to what was cosigned; seen is a C2SP cosignature byte for byte."
    ),
    "log.seal-refuses": (
        "A seal that is changed, respelled, of another fleet or by another key is refused."
    ),
    "log.seal-checkpoint": "A seal is a C2SP checkpoint that any signed-note reader verifies.",
    "log.note-strict": (
        "A note in another form, or changed in any byte, is refused or does not verify."
    ),
    "log.note-verify": (
        "A note holds when its known key signed it, and not when one known signature is wrong."
    ),
    "log.note-c2sp": (
        "Signed notes are those of C2SP: the examples of the specification verify and are rewritten alike."
    ),
    "log.tree-logarithmic": "Generating a proof reads a logarithmic number of subtrees.",
    "log.tree-proofs-refused": (
        "A proof that is changed anywhere, or used for another place, size or root, does not hold."
    ),
    "log.tree-consistency": "Consistency proofs are those of RFC 6962 and hold.",
    "log.tree-inclusion": "Inclusion proofs are those of RFC 6962 and hold.",
    "log.tree-range-stored": (
        "A compact range comes back from its bytes, and a copy does not disturb it."
    ),
    "log.tree-rfc6962": "Roots are those of RFC 6962.",
    "log.entry-fast": "Composing or parsing an entry costs microseconds.",
    "log.entry-header-fits": "The longest header that can be composed is within the limit.",
    "log.entry-total": "Arbitrary or changed header bytes raise nothing but a refusal, at once.",
    "log.entry-strict": "A header that compose would not write, byte for byte, is refused.",
    "log.entry-author-owns-stream": "An entry whose author is not its stream's machine is forged.",
    "log.entry-erasable": (
        "A body is erased with its salt, and the entry's id and header stay as they were."
    ),
    "log.entry-body-bound": "A body or salt other than the one the header names is refused.",
    "log.entry-canonical": "The header of an entry is canonical JSON.",
    "log.entry-round-trip": (
        "Every entry that is composed is parsed back equal, and its id is the leaf hash of its header."
    ),
    "log.clock-near": (
        "While the wall clock runs ahead of what was seen, stamps are the wall clock."
    ),
    "log.clock-clamped": (
        "Time stamps from the future move our clock at most ten minutes beyond the wall clock."
    ),
    "log.clock-forward": (
        "The hybrid clock only moves forward, past everything seen that is not far ahead."
    ),
    "log.keys-silent": "A signer never shows its seed.",
    "log.keys-refuse": (
        "A changed signature, another message, another key or a wrong length does not verify."
    ),
    "log.keys-rfc8032": "Signatures are Ed25519 as of RFC 8032.",
    "log.stream-scopes-tell": "A scope tells whom it is for.",
    "log.stream-refuses-others": (
        "Text that is not a stream, machine, incarnation, scope or group name is refused."
    ),
    "log.stream-round-trip": "A stream name comes back from its text.",
    "log.canon-typed": "A typed body takes defaults for missing fields and refuses unknown ones.",
    "log.canon-total": "Arbitrary bytes read as canonical JSON raise nothing but Malformed.",
    "log.canon-bounds-first": (
        "Size and depth of JSON are checked before any parser sees it, in linear time."
    ),
    "log.canon-refuses-outside-profile": (
        "Floats, integers from 2^53 on and keys outside ASCII are neither written nor read."
    ),
    "log.canon-refuses-other-spellings": (
        "JSON in any other spelling than the canonical one is refused, never repaired."
    ),
    "log.canon-is-rfc8785": (
        "Canonical JSON is what the standard library writes with sorted keys and no spaces."
    ),
    "log.canon-round-trip": (
        "Every value of the canonical JSON profile is read back as it was written."
    ),
    # --- store
    "store.mark-doubts": (
        "A database that fell behind its mark, or moved to another machine, is noticed."
    ),
    "store.mark": "The high-water mark is written whole, at most once a second, and on demand.",
    "store.blob-name": "A blob's name can never lead out of its folder.",
    "store.blob-rot": (
        "A blob that rotted, or came as other bytes than its name says, is refused, and can be healed."
    ),
    "store.blob": "A blob is kept whole under its hash or not at all.",
    "store.old-sqlite": (
        "A SQLite that can corrupt its write-ahead log, and a database of a newer Muster, are refused in one sentence."
    ),
    "store.rot": "An entry that rotted on the disk is reported and never served.",
    "store.torn": "A torn write-ahead log opens at the last whole commit.",
    "store.kill": (
        "A process killed at any moment loses no entry whose commit returned, and keeps no part of another."
    ),
    "store.broken": "After a failed write the store refuses to write and still reads what it has.",
    "store.image": "An image holds exactly what was committed.",
    "store.clock": (
        "Stamps of our entries rise, across restarts and past what other machines stamped."
    ),
    "store.erase": "An erased body is gone from entry and tables, and every proof stays valid.",
    "store.freeze": (
        "A forked stream falls back to the common prefix, its tables with it, and both branches stay."
    ),
    "store.new-fold": (
        "A fold that is new or changed is folded from the first entry when the store opens."
    ),
    "store.as-of": "Any table can be asked as of a past admission or time of this machine.",
    "store.order-free": "In whatever order streams arrive, the tables are the same.",
    "store.rebuild": "Folding all entries again gives the same tables and the same history.",
    "store.bad-rows": (
        "A row that SQLite could not store as declared is skipped, and the transaction goes on."
    ),
    "store.poison": (
        "An entry that a fold cannot use is recorded with its reason and stops neither its stream nor another fold."
    ),
    "store.fold-together": "What an entry changes in the tables counts together or not at all.",
    "store.cosigns": "Of every machine and strength the largest cosign of a stream is kept.",
    "store.kept-seals": (
        "Of the seals of 256 entries the newest is kept, and a seal that is not newer changes nothing."
    ),
    "store.entry-by-id": "Every entry that counts is found by its id.",
    "store.proofs": "Inclusion and consistency proofs from tiles verify, for every size held.",
    "store.serves-sealed": (
        "What is served is covered by a seal and its proof, also while the rest of the stream is missing."
    ),
    "store.take-conflict": "Entries admitted against an older state are not kept.",
    "store.take": "Taken entries give the same entries, tables and root on every machine.",
    "store.one-seal": (
        "A commit makes one seal per stream that grew, however many entries it holds."
    ),
    "store.own-streams": (
        "The store appends only to streams of its own machine, and to none that forked."
    ),
    "store.atomic": (
        "A transaction that fails leaves entries, tables, heads and clock as they were."
    ),
    "store.append-durable": (
        "What a transaction appended, sealed and folded is there after the database is opened again."
    ),
    # --- fleet
    "fleet.repository-keeper": (
        "A repository is fetched from a hub that has it or from a machine that was granted it, never from one that only says so."
    ),
    "fleet.vectors": "The bytes of every document of the fleet stay what they were.",
    "fleet.hostile-bytes": "Hostile bytes in any document of the fleet are refused, never a crash.",
    "fleet.presence": (
        "A machine unheard is silent, then away; one that slept itself blames nobody for it."
    ),
    "fleet.incidents": "The same incident while open is counted, not repeated.",
    "fleet.groups": (
        "A group's owner alone says who its members are, and a removed member gets nothing more."
    ),
    "fleet.scope-holders": "A machine outside a stream's scope may not hold it.",
    "fleet.roster-order": (
        "The order in which streams arrive changes nothing about who is in the fleet."
    ),
    "fleet.folds-total": (
        "An entry about the fleet that does not hold is skipped with its reason and changes nothing."
    ),
    "fleet.renewal": "A machine whose key counts renews its papers, however long ago they expired.",
    "fleet.join-answer": (
        "A newcomer trusts its invite alone: every part of the hub's answer is checked against the fleet's key."
    ),
    "fleet.possession-first": (
        "A join without proof of the root key is refused before its token is looked at."
    ),
    "fleet.invite-once": "An invite enrols one machine, of one name, once, until its time.",
    "fleet.invite-string": (
        "A damaged invite is recognised before anything is sent, with a sentence that says what is wrong."
    ),
    "fleet.capability": (
        "An agent's capability allows its own verbs for its own task until its time; only a hash of it is kept."
    ),
    "fleet.grant-taken": "A grant that was taken stays taken, whoever shows it again.",
    "fleet.delegation": (
        "Only an operator, or a key that an operator lets, can give a grant, and never a wider one than it holds."
    ),
    "fleet.default-deny": (
        "What no grant allows is denied, and the answer cites the grant that allows it."
    ),
    "fleet.statement-once": "An order that is shown again does nothing.",
    "fleet.statement-bounds": (
        "An order counts for its fleet, target, verb, object and arguments, until its time, and for nothing else."
    ),
    "fleet.certificate-key": (
        "A link trusts the TLS key in the machine's record, never a certificate alone."
    ),
    "fleet.certificate-pin": (
        "The fleet's certificate can be checked by anyone who knows the fleet's id."
    ),
    "fleet.cuts": "Of a revoked machine's streams only what its revocation names still counts.",
    "fleet.tombstone": (
        "A revoked key is never enrolled again and may do nothing; its name is free for another key."
    ),
    "fleet.names": "A name is [a-z0-9-] and can never be a path.",
    "fleet.one-kind": "A signature under one kind of document counts for no other kind.",
    "fleet.other-fleet": "A document of another fleet is refused.",
    "fleet.record-two-signatures": (
        "A machine is known only by a record that the fleet's authority and the machine's root key both signed."
    ),
    "fleet.secrets-stay-inside": (
        "A seed is never printed, copied into a document or serialised, and neither is a token."
    ),
    "fleet.sub-keys": (
        "Every purpose has a key of its own, derived from the machine's one seed; no two purposes share one."
    ),
    # --- task
    "task.evidence-travels": (
        "Evidence in a bundle stands alone: every entry is proven to be under the owner's seal."
    ),
    "task.evidence": (
        "A machine runs a task only when every cause, back to an operator's signature over exactly this work, holds."
    ),
    "task.duplicates-start-once": (
        "An assignment starts at most one attempt, however often it arrives."
    ),
    "task.first-agent-wins": (
        "A phase that lists agents gets the first one that any machine has, whatever the load."
    ),
    "task.needs-are-hard": (
        "A machine that misses one need of a task never gets it, and every missing need is named."
    ),
    "task.flat-cost": "The owner's cost per task does not depend on how many tasks are queued.",
    "task.restart-keeps-work": "A restarted owner takes up every live task where it was.",
    "task.promotes-before-done": (
        "A task with a commit is done only after its branch was moved to that commit."
    ),
    "task.fence-first": (
        "A task with a repository is assigned only after the repository's fence has the new epoch."
    ),
    "task.person-decides": (
        "A task for a person is given to no machine and settled by that person's decision."
    ),
    "task.deadline": "A task past its deadline fails, wherever it is.",
    "task.cancel": (
        "A cancelled task ends at once, its worker is told to stop, and its slot is free when it has."
    ),
    "task.late-is-ignored": "A result that comes too late is recorded and changes nothing.",
    "task.refusal-has-a-reason": (
        "A machine that will not run a task says why, and another is asked."
    ),
    "task.retries": (
        "A failed attempt is tried again as often as the task allows, after a growing wait."
    ),
    "task.loss-is-not-failure": (
        "A lost machine does not use up a task's retries: losses have their own counter and limit."
    ),
    "task.one-holder": (
        "At most one machine holds a task, and what another machine says about it changes nothing."
    ),
    "task.lost-lease-moves-work": (
        "A lease that is not renewed ends, and the task goes elsewhere under a higher epoch."
    ),
    "task.sent-twice-is-one": (
        "Equal content under an equal cause is one task while it is unsettled, and an explicit key is one task for ever."
    ),
    "task.why": (
        "Every assignment keeps each candidate and the reason why it won or lost, and a queued task can say what it waits for."
    ),
    "task.slots": "A machine never holds more attempts than it has slots.",
    "task.order": "Queued tasks are assigned by priority, then by age.",
    "task.tool-versions": (
        "A range of tool versions means what people mean by it, for versions as tools print them."
    ),
    "task.worker-ends-first": (
        "A worker's lease ends before its owner's does, whatever delays and clocks are between them."
    ),
    "task.folds-are-total": (
        "A body that cannot be read is skipped with a reason and changes no row, whatever the kind."
    ),
    "task.epochs-rise": (
        "A task's epochs only rise, and whatever ends an attempt must name the epoch that holds the lease."
    ),
    "task.owner-decides": (
        "Only entries in the owner's stream change a task's state; what a worker writes is an input."
    ),
    "task.settles-once": "A task has one outcome, and it never changes, whatever comes later.",
    # --- spec
    "spec.same-order": (
        "The same spec text gives the same order for a phase on every machine, and a changed one another."
    ),
    "spec.human": "A phase by human asks a person and goes on only when the person approves.",
    "spec.each": (
        "A phase with each is done when every match is, and matching nothing is a failure."
    ),
    "spec.race": "The first racer that passes wins; the others are cancelled and told who won.",
    "spec.run-settles": (
        "In whatever order tasks end, a run is settled, and every phase that could not run says why."
    ),
    "spec.start-after": "A phase starts only when all its prerequisites are done.",
    "spec.bounded-values": (
        "A value is handed on bounded and marked where cut; one with NUL is refused."
    ),
    "spec.no-injection": "No value of an earlier phase ever becomes shell source.",
    "spec.local-files": "A phase that needs a file of another machine is refused.",
    "spec.fitting-machine": (
        "A phase that fits no machine is refused with what the nearest machine lacks."
    ),
    "spec.known-references": (
        "A reference to a phase that is unknown, or not done before, is refused."
    ),
    "spec.sensible": (
        "Keys that make no sense together, and times and budgets out of range, are refused."
    ),
    "spec.checkable": "A phase that nothing can check is refused.",
    "spec.cycle": "A spec whose phases wait for each other is refused, and the cycle is named.",
    "spec.one-form": "Reader, types and published schema agree on what form a spec has.",
    "spec.inside-repository": "A deliverable is a path inside the repository and never in .git.",
    "spec.nearest-word": "An unknown key or name in a spec is refused with the nearest known word.",
    "spec.every-mistake": (
        "All mistakes of a spec are told at once, each with line, column and path."
    ),
    "spec.plain-values": (
        "A value in a spec is what was written: no, 3.10, 12:30 and a date stay text."
    ),
    "spec.safe-yaml": (
        "A spec is a safe part of YAML: no tags, anchors, aliases, merge keys, directives, duplicate keys or second document."
    ),
    "spec.hostile-text": (
        "Hostile bytes for a spec (brackets, bombs, NUL, bad UTF-8) are refused within a second by one sentence with its place."
    ),
    # --- message
    "message.inbox": (
        "An inbox holds what is for this machine or agent, in the senders' order, whatever arrived first."
    ),
    "message.steps-have-proofs": (
        "Stored is proven by the recipient machine's cosign, read and acted by its entries; nothing else counts."
    ),
    "message.bad-ones-are-refused": (
        "A message that cannot be delivered is refused before it is sent, and skipped with a reason when it comes."
    ),
    "message.receipts-are-the-readers": (
        "That a message was read or acted on is said only by its recipient."
    ),
    "message.key-counts-once": "A message that is sent twice under one key counts once.",
    # --- channel
    "channel.link-cut-noticed": (
        "A cut link is noticed within the keepalive bound, and dialling again works once it heals."
    ),
    "channel.tls-robust": (
        "Garbage, plain HTTP, oversize and stalled handshakes leave the listener healthy."
    ),
    "channel.tls-renewal": "New credentials serve new links while the live ones go on.",
    "channel.tls-join-pin": (
        "A joiner that knows only the fleet's key links to the fleet and to nobody else."
    ),
    "channel.tls-dial-proven": "A dial returns only after the far end accepted the link.",
    "channel.tls-authority": (
        "A certificate of another authority opens no link in either direction."
    ),
    "channel.tls-unproven": (
        "A dialer without a certificate gets a link that proves no machine, and only a few such at once."
    ),
    "channel.tls-no-calendar": "An expired certificate of a known key still opens a link.",
    "channel.tls-identity": (
        "The machine at the end of a TLS link is decided by its key, and a revoked or unknown key gets no link."
    ),
    "channel.ipc-client": (
        "A command talks to the daemon over the Unix socket without an event loop."
    ),
    "channel.ipc-path": (
        "A socket path the kernel cannot hold, or a folder open to others, is refused with what to do."
    ),
    "channel.ipc-stale-socket": "A socket file is taken over only if nobody listens on it.",
    "channel.ipc-same-user": "Only the user who runs the daemon gets a link over its Unix socket.",
    "channel.memory-faults": (
        "The faults of the in-process channel follow from their seed, and delays keep the order."
    ),
    "channel.backoff": (
        "Dials are repeated after random pauses that grow to half a minute and start over after a stable link."
    ),
    "channel.light-import": "The frame codec and the command's socket client import nothing heavy.",
    "channel.frame-codec": (
        "Decoding takes any bytes and yields a frame of the specification or Malformed."
    ),
    "channel.statistics": "Both ends of a link count its frames and bytes.",
    "channel.peer-proven": "A dial for one machine never returns a link to another.",
    "channel.link-life": "A link ends with its handler, and a handler that fails is reported.",
    "channel.many-links": "One listener carries many links and keeps them apart.",
    "channel.backpressure": (
        "A slow reader makes senders wait, and the memory of both ends stays bounded."
    ),
    "channel.close-cuts-waits": "Closing a link wakes whoever waits on it at either end.",
    "channel.gone-is-unreachable": (
        "A link that is gone, or an address where nobody listens, raises Unreachable on every call."
    ),
    "channel.close-reason": (
        "The far end of a closed link receives what was sent before and then learns the reason."
    ),
    "channel.oversize-refused": (
        "A frame over the limit is refused before it is sent, and an announced one before it is read."
    ),
    "channel.in-order": (
        "Frames arrive whole, once and in order while a link works, however many send at once."
    ),
    # --- agent
    "agent.question-ends": (
        "A question is over with its answer, its time or its attempt, and the fleet hears that it is."
    ),
    "agent.answered-by-a-person": (
        "A permission that the policy leaves to a person is answered by an operator's signed order from any machine; the decision names the operator."
    ),
    "agent.shim-dies-early": (
        "A shim that is killed before it has its order gives an outcome, whichever event loop runs."
    ),
    "agent.works-in-a-run": (
        "A real agent works in a run between machines: its deliverables are checked, its commit is signed by its machine and pushed through the fence, its journal is readable elsewhere while it works, and its words reach later phases."
    ),
    "agent.answer-unbroken": (
        "What an agent said reaches later phases as it was said: pauses, tools and blank lines break nothing."
    ),
    "agent.discover": (
        "An agent counts as installed only when its adapter and its program are on PATH; its version is reported."
    ),
    "agent.catalogue": "The known agents are a list that a person can add to and override.",
    "agent.shim-start": (
        "The shim starts with the standard library alone, so that an attempt starts in tens of milliseconds."
    ),
    "agent.policy-once": "A permission holds once: no option that lasts is ever chosen.",
    "agent.policy": (
        "An agent may change what is inside its worktree, links resolved, and nothing outside, unless its task says otherwise."
    ),
    "agent.permission-ask": (
        "A question to a person waits for the answer, and without one in time it is a no."
    ),
    "agent.permission-recorded": (
        "Each permission request is answered by the policy, and the answer is recorded with its reason."
    ),
    "agent.acp-missing": (
        "Without the ACP library the outcome is one sentence that names what to install."
    ),
    "agent.acp-errors": (
        "An agent that dies, refuses, is not logged in or loses its model says so in the outcome."
    ),
    "agent.acp-mode": (
        "An agent is put into the mode in which it asks before it acts, or is not prompted at all."
    ),
    "agent.acp-no-capabilities": "No file and no terminal capability is offered to an agent.",
    "agent.acp-events": (
        "What an agent says, plans, does and costs over ACP becomes journal events, joined, bounded and without floats."
    ),
    "agent.real-agents": (
        "The real Claude Code and Codex write, commit and are cancelled through the whole chain, without a credential."
    ),
    "agent.noop": "The empty agent ends as told without a process.",
    "agent.one-outcome": (
        "An attempt has exactly one outcome, however often it is awaited or cancelled."
    ),
    "agent.start-errors": "An attempt that cannot be started says why in one sentence.",
    "agent.live-output": "Output arrives while the attempt runs.",
    "agent.bounded-output": (
        "Output is bounded: huge lines and endless output are cut with a mark, and the end is kept."
    ),
    "agent.environment": (
        "An attempt sees the environment it was given and nothing of the daemon's."
    ),
    "agent.shell-values": (
        "A value reaches a command as an environment variable, never as shell source."
    ),
    "agent.shell": (
        "A plain command runs in its folder, its lines become events and its exit code its outcome."
    ),
    "agent.no-subreaper": (
        "Where there is no subreaper, orphans are found by the process groups that were seen."
    ),
    "agent.slow-reader": (
        "A daemon that does not read delays an attempt's output, never its deadline."
    ),
    "agent.shim-death": (
        "A shim that dies still gives an outcome, and its processes are found by their marker and killed, no others."
    ),
    "agent.dies-with-daemon": (
        "A daemon that dies, by kill -9 too, takes every process of its attempts with it."
    ),
    "agent.deadline": "An attempt past its deadline is ended by its own shim.",
    "agent.done-ends-all": (
        "What a finished command left in the background is ended with the attempt."
    ),
    "agent.cancel-ends-all": (
        "A cancelled attempt leaves no process behind, whatever its processes do to escape, after a chance to clean up."
    ),
    # --- git
    "git.fence-believes-orders-only": (
        "A task or run belongs to the machine that an operator ordered it of, and a member that writes its name into its own stream moves no ref."
    ),
    "git.flow-control": (
        "Neither side of a git tunnel sends more than it was granted, and one that does is cut off."
    ),
    "git.light-start": "The programs that git starts import nothing heavy.",
    "git.remote-owner": (
        "An owner on another machine than the hub raises fences and promotes through the same tunnel and rules."
    ),
    "git.zombie-harmless": (
        "A worker whose epoch is spent changes nothing at the remote, even when the epoch rises between the two hooks."
    ),
    "git.fails-closed": (
        "A push is refused when the daemon is gone, silent or unclear, when the machine is not proven, or when a hook cannot run."
    ),
    "git.tunnel": (
        "git reaches a repository on another machine as muster::<machine>/<name>, whatever the size, and a cut tunnel changes nothing."
    ),
    "git.no-debris": (
        "Nothing of an attempt stays after it is closed, or after the next start when the daemon crashed."
    ),
    "git.push-verified": "A pushed attempt is read back from the remote before it counts.",
    "git.collect": (
        "The result of an attempt names its commit, its changed files and the promised deliverables that are missing."
    ),
    "git.agent-configuration-ignored": (
        "Configuration, hooks, filters and repositories an agent leaves in its folder run nothing and enter no commit."
    ),
    "git.forged-commit": (
        "A commit without a signature, by another key, or changed after signing is refused."
    ),
    "git.commit-signed": (
        "An attempt's commit has the agent as author, its machine as committer and a signature by the machine's git key that git verify-commit accepts."
    ),
    "git.prerequisites-merged": (
        "Several prerequisites are merged into a signed commit; a conflict is refused with the phases and files and leaves nothing behind."
    ),
    "git.worktree-own": (
        "Every attempt works in its own folder, which starts at its prerequisites' commits and shares no branch, stash or configuration with another."
    ),
    "git.bounded-run": (
        "A git command that takes too long or is cancelled is ended with all its children."
    ),
    "git.errors-name-the-reason": (
        "A git command that fails raises what it means for the caller, with the first useful line git said, in one clean line."
    ),
    "git.hostile-input": (
        "Transports that run commands, options in place of names, and names that are paths are refused before git acts on them."
    ),
    "git.guard-stands": (
        "A repository whose hooks or configuration were changed gets them back before it is served."
    ),
    "git.repository-add": (
        "A repository is added from a checkout or an address, whole with its hooks, or not at all."
    ),
    "git.foreign-remote": (
        "On a remote without hooks, compare-and-set pushes fence epochs and branches, and are read back."
    ),
    "git.promotion-checks-commit": (
        "A promotion refuses a commit that was not the one pushed, or that does not descend from the attempt's base."
    ),
    "git.promotion-is-atomic": (
        "A promotion moves the branch only if fence, attempt and branch are still what the owner saw, in one transaction."
    ),
    "git.transaction-checks-fence": (
        "A prepared ref transaction aborts unless the attempt's epoch is the one the fence in the repository holds."
    ),
    "git.epoch-rises": (
        "A fence takes only a higher epoch; an older one is refused and changes nothing."
    ),
    "git.attempt-ref-only": (
        "A worker's push moves the ref of its own attempt at the current epoch, and every other ref, epoch, machine and deletion is refused."
    ),
    # --- node
    "node.blob-handed-on": (
        "Without a repository, what a phase delivered lies in the folder of the phases that follow it, on whatever machine they run; two that deliver one path are refused."
    ),
    "node.blob-sweep": (
        "A start removes what was half written and blobs that no entry names, never one that an entry names."
    ),
    "node.blob-whole-or-nothing": (
        "Bytes that are not what the entry names, or not all of them, leave nothing behind, and a repeat succeeds."
    ),
    "node.blob-hash-is-no-capability": (
        "A blob is served only under an entry that the asking machine may read, that names it, and under which the serving machine came to have it; knowing its hash gets nobody anything."
    ),
    "node.blob-other-holder": (
        "When the machine that delivered a blob is away, another that fetched it serves it; when nobody has it, it is waited for."
    ),
    "node.blob-relay": (
        "Two machines without a link to each other exchange a blob through the hub, which keeps no copy."
    ),
    "node.blob-transfer": (
        "A blob comes from the machine that has it to the one that needs it, whole, with no more under way than the window allows, and is not fetched twice."
    ),
    "node.rounds-go-on": (
        "What is done again and again (papers, facts) goes on after a round that was refused."
    ),
    "node.channels-apart": (
        "Two machines that both begin conversations on one link never use the same channel number."
    ),
    "node.journal-of-one-task": (
        "A journal read for one task shows that task's entries and no other's."
    ),
    "node.loop-verbs-answer": (
        "Whoever asks a verb that waits is answered exactly once, also when this machine itself fails at it."
    ),
    "node.silent-gets-nothing": (
        "A machine that let a lease end in silence gets no work until it is heard again, although its link stands."
    ),
    "node.zombie-harmless": (
        "A machine that stood still past its lease changes neither the task nor the repository when it comes back."
    ),
    "node.nothing-acknowledged-is-lost": (
        "Whatever is killed under load: nothing acknowledged is lost, no entry is applied twice, each phase is promoted once, no stale push is taken, every run ends, nothing runs on."
    ),
    "node.doubt-means-new": (
        "A database that may be a copy or fell back begins a new incarnation, once; an ordinary crash goes on."
    ),
    "node.attempt-stops": (
        "An attempt that is stopped, at any point, ends as killed, pushes nothing, and names what could not be ended."
    ),
    "node.attempt-done-means": (
        "An attempt is done when the agent succeeded, what it promised is there, its check passed and its commit is pushed; nothing of it is left behind."
    ),
    "node.hostile-bytes": (
        "Every reader of others' bytes takes or refuses any of them in bounded time, raising nothing but what errors.py names; what is refused changes nothing."
    ),
    "node.globs": (
        "A glob matches files, or folders where it ends in a slash; one star stays within a name, two cross folders."
    ),
    "node.files-whole-or-not": "A file of the home is replaced whole or not at all.",
    "node.config-is-checked": (
        "A setting that is unknown or of another type is named and refused; what is written is read back."
    ),
    "node.seeds-are-kept": (
        "A seed is written once, for its user alone, never overwritten, and refused where others may read it."
    ),
    "node.denials-are-kept": (
        "Refused orders are written down; a flood of them is counted and fills no log."
    ),
    "node.orders-exact": (
        "An order is obeyed for exactly what was signed: verb, object, arguments, machine and time."
    ),
    "node.orders-once": (
        "An order is obeyed once by each machine it names, whatever restarts, and its effects cite it."
    ),
    "node.streams-end-with-the-caller": "Whoever follows and hangs up is forgotten.",
    "node.calls-wait-for-the-head": (
        "An order given before the machine knows its own head waits for that and is then carried out."
    ),
    "node.calls-are-passed-on": (
        "A call for a machine behind the hub gets its answer, or the sentence that the machine is away."
    ),
    "node.large-answers": "An answer of any size comes whole, in parts that fit into frames.",
    "node.calls-are-checked": (
        "A call is answered when its form is exact, the table names its verb, and the caller brings what the verb needs."
    ),
    "node.receipts": "A message that waits is answered once the other machine has stored it.",
    "node.own-work-at-once": (
        "A task that an owner gives to itself begins in the step that opened it."
    ),
    "node.bad-links-are-cut": (
        "A link that proved no machine may not speak of streams, and one that brings too much that is refused is cut."
    ),
    "node.events-are-apart": (
        "No frame, however malformed, changes what becomes of the other events of its batch."
    ),
    "node.step-is-one-transaction": (
        "A step is one commit; of a step that failed nothing is sent, kept or spent."
    ),
    "node.outbox-bounded": (
        "A peer that asks faster than it reads the answers is cut before it costs memory."
    ),
    "node.agent-events-bounded": (
        "Whatever an agent says becomes an entry that fits, or a counter; it never ends the machine or speaks for another task."
    ),
    "node.notes-are-one-line": (
        "What a peer can put into the daemon's log is one printable line of bounded length."
    ),
    "node.frames-never-end-it": (
        "No frame of any type, from any link, ends the machine, changes what is durable, or spoils what it reports."
    ),
    "node.same-run-once": (
        "The same spec handed in while it runs is the same run, unless another is asked for."
    ),
    "node.cancel": "A cancelled run stops what runs, opens nothing more, and takes no late result.",
    "node.matches": (
        "A phase over matches asks for them once and opens one task for each; matches that cannot be listed end the run with the reason."
    ),
    "node.restart-takes-up": (
        "An owner that restarts, also in a new incarnation, takes up each run where it stood and settles it once."
    ),
    "node.promotion-settles": (
        "A phase with a repository is done when its branch stands at the commit, and not before."
    ),
    "node.fence-before-lease": (
        "No machine gets a lease before the fence of the repository has taken its epoch."
    ),
    "node.graph-in-order": (
        "Phases begin when all before them are done; a failed phase fails the run and nothing that depends on it begins."
    ),
    "node.secrets-stay-out": (
        "Where an attempt says the value of a secret it was given, entries hold the name of the secret."
    ),
    "node.agents-env": (
        "Keys of agents may lie in agents.env, which only its owner may read and which is read for each attempt."
    ),
    "node.agent-variables": (
        "An attempt gets the variables that its agent reads, the network's, and what `agent_env` names; no key of another agent."
    ),
    "node.other-users-get-nothing": (
        "A process of another user reaches neither the socket nor a seed."
    ),
    "node.agents-get-their-capability": (
        "An agent may do for its task what its capability names, and cannot give orders."
    ),
    "node.replay-does-nothing": (
        "An order shown again, here, elsewhere or after a restart, changes nothing."
    ),
    "node.passing-on-adds-nothing": (
        "A call that was passed on has no authority of the machine that passed it."
    ),
    "node.no-forged-orders": (
        "A machine can neither forge an order of an operator, nor use one with other arguments, elsewhere or later; it gets no verb that is local."
    ),
    "node.strangers-enrol-only": (
        "Whoever proves no machine of the fleet gets enrolment and nothing else, whatever is called or sent."
    ),
    "node.private-streams-stay": (
        "A member that may not hold a stream gets no entry, proof or leaf of it, whatever it asks."
    ),
    "node.poison-is-taken-and-ignored": (
        "Whatever a member writes into its own streams, replicas take it, no fold or reader stumbles, nothing is begun on its word."
    ),
    "node.papers-renew": (
        "Papers are renewed at half of their life, and also when they expired long ago, without cutting a link."
    ),
    "node.revoke-cuts": (
        "A revocation cuts the live links of a machine everywhere within a second, and nothing of it is taken any more."
    ),
    "node.cloned-home": "Two copies of one machine running at once are a critical incident.",
    "node.restored-home": (
        "A home restored from a backup opens a new incarnation, gets its own earlier words back from its peers, and contradicts nothing it said."
    ),
    "node.patient-push": (
        "A worker whose repository is out of reach keeps its work and pushes it as soon as it can, while its lease lasts."
    ),
    "node.second-daemon": (
        "A second daemon in a home ends with a sentence, and the first one does not notice."
    ),
    "node.torn-log": (
        "A torn write-ahead log loses nothing that another machine holds, and the machine goes on without contradicting itself."
    ),
    "node.disk-full": (
        "A daemon that cannot write stops with one sentence, and once there is room it has everything it acknowledged."
    ),
    "node.wrong-clock": (
        "A clock that is a year off neither cuts a machine off nor moves the clock of another."
    ),
    "node.one-side-reachable": (
        "Two machines push both ways although only one of them can be dialled."
    ),
    "node.third-member-serves": (
        "A machine that was away gets what it missed from any member that holds it, also when the writer is gone."
    ),
    "node.run-survives-its-worker": (
        "A killed worker takes its attempts with it, says so when it is back, and the run goes on without waiting for the lease."
    ),
    "node.run-survives-its-owner": (
        "A run goes on after its owner was killed; an attempt that ran meanwhile is neither lost nor repeated."
    ),
    "node.unfinished-attempts-are-told": (
        "An attempt that was running when its machine was killed is reported as ended after the start, and not before the machine's own head is confirmed."
    ),
    "node.calls-bounded": (
        "A call that is too large, too deep or no call at all is refused before it is read."
    ),
    "node.arguments-checked": (
        "Arguments of a wrong type or content get one clear sentence; nothing changes and the machine goes on."
    ),
    "node.capability-bounds": (
        "A capability counts for its verbs, its task and its time, on the machine that gave it."
    ),
    "node.statement-once": (
        "A statement is obeyed once, however often and by whatever link it arrives."
    ),
    "node.statement-exact": (
        "A statement orders exactly its verb, object, target, arguments, fleet and time, and nothing else."
    ),
    "node.revoked-asks-nothing": (
        "A revoked machine or operator is answered nothing, also on a link that is still open."
    ),
    "node.forwarding-adds-nothing": (
        "A call that was passed on never counts as a call of the machine that passed it on."
    ),
    "node.order-needs-statement": (
        "No link, socket or role replaces the statement of an operator; nothing but the table names a verb."
    ),
    "node.stranger-enrols-only": (
        "A link that proved no machine is answered nothing but enrolment, here and through forwarding."
    ),
    "node.facts-are-bounded": (
        "A tool that hangs or fails counts as absent, in bounded time, and nothing of it meets a shell."
    ),
    "node.facts-are-asked-not-guessed": (
        "A tool or agent is a fact of a machine only when the program itself answered."
    ),
    # --- cli
    "cli.terminal-is-safe": (
        "Whatever machines and agents wrote, nothing of it moves the cursor, changes the title or hides text on a person's terminal."
    ),
    "cli.ask-without-agent": (
        "Without an agent `muster ask` names the missing ones, gives a skeleton that passes the check, and ends with 5."
    ),
    "cli.ask-asks": (
        "Nothing that an agent planned runs before a person said yes or typed --yes; without anybody there the plan is the answer."
    ),
    "cli.ask-mends": (
        "A plan that cannot run goes back to the agent with what is wrong, three times at most; nothing runs before it is right."
    ),
    "cli.ask": (
        "`muster ask` turns words into a plan by an agent, and the plan into a run that is followed to its end."
    ),
    "cli.logs": (
        "`muster logs` shows what an agent did, read by an order from the machine that did it, live with --follow."
    ),
    "cli.table": (
        "Every verb of the table has its handler, and whatever changes something for others needs an order."
    ),
    "cli.calls-documented": (
        "The page about calls names every field of a call, every need and every exit code."
    ),
    "cli.audit-fork": (
        "A fork is named with its place, and evidence that does not hold is not believed."
    ),
    "cli.audit-revoked": (
        "Entries beyond a revocation are named, and what a revoked machine vouches for vouches for nothing."
    ),
    "cli.audit-signers": (
        "A seal or cosign counts only by the key that a record signed by the fleet names for it."
    ),
    "cli.rebuild": "`muster rebuild` folds every table anew, and only while the daemon is down.",
    "cli.audit-explain": "`muster audit explain` leads from a result back to the operator's order.",
    "cli.audit-damage": (
        "Damage to the log is named with stream and place, and ends with exit code 1."
    ),
    "cli.audit": (
        "`muster audit` verifies the own log beside the daemon, and exports what proves itself."
    ),
    "cli.messages": (
        "A message sent from the command line arrives, and its sender sees how far it came."
    ),
    "cli.on-others": (
        "--on lets another machine, all machines or those with a label answer, by the operator's order."
    ),
    "cli.run-follows": (
        "`muster run` follows a run to its end; its exit code is 0 only when the run is done."
    ),
    "cli.down": (
        "`muster down` returns when the daemon is gone, and the next `up` goes on in the same incarnation."
    ),
    "cli.up-says-why": (
        "An `up` that cannot begin says why, also with --detach, and leaves nothing running."
    ),
    "cli.up-once": "One daemon runs per home; a second `up` says so and changes nothing.",
    "cli.join-pins": "A newcomer gives its token to a hub of the inviting fleet only.",
    "cli.join-again": (
        "A join whose answer was lost can be given again, and makes the same machine a member."
    ),
    "cli.join": (
        "`muster join` makes a machine a member, with nothing but the string that `muster invite` printed."
    ),
    "cli.check-exit": (
        "`muster check` ends with 1 when the spec cannot run, and names line and column as compilers do."
    ),
    "cli.shows-everything": "Every answer is shown: on its own page, or with all its fields.",
    "cli.text-is-aligned": "Tables are aligned, and times are said as people say them.",
    "cli.text-is-harmless": "Text of machines and agents is shown without control characters.",
    "cli.grant": (
        "A grant is given and taken back by statements of its own, which say exactly that."
    ),
    "cli.order-target": (
        "An order without --on goes to the hub, to this machine, or to the owner of the work that it names."
    ),
    "cli.run-args": "A run is signed over exactly what its workers compute again from the log.",
    "cli.orders-need-the-key": (
        "Without the operator's key nothing is ordered, and the command says where the key is."
    ),
    "cli.orders-are-signed": (
        "An order is signed in the command for one machine, one object, exactly its arguments, and five minutes."
    ),
    "cli.socket": (
        "A command finds the socket that the daemon of its home listens on, however deep the home is."
    ),
    "cli.call-errors": (
        "An error of the daemon reaches the person with its sentence, and the script with its exit code."
    ),
    "cli.call": (
        "A call names its verb and arguments, and its answers are put together from parts or come one by one."
    ),
    "cli.call-canonical": (
        "A command writes canonical JSON byte for byte as the log does, without the log's libraries."
    ),
    "cli.starts-light": (
        "A quick command loads no heavy library, so that it starts in less than 100 ms."
    ),
    "cli.doctor": (
        "`muster doctor` names each fault with its mend, and ends with 1 when there is one."
    ),
    "cli.operator-only": "What only makes sense on this machine refuses to act on another.",
    "cli.join-leaves-nothing": "A join that is refused leaves nothing behind on the newcomer.",
    "cli.init-once": (
        "A home gets one machine: a refused init leaves none, and a repeated one changes nothing."
    ),
    "cli.init": (
        "`muster init` makes a private home with the keys of a machine, its fleet and its operator."
    ),
    "cli.completion": (
        "The completion scripts are made from the table of verbs and can be read by their shells."
    ),
    "cli.pipe": "A reader that leaves early ends a command quietly.",
    "cli.interrupt": "Ctrl-C ends a command with exit code 130 and without noise.",
    "cli.no-traceback": "No command ever shows a traceback, unless it is asked for.",
    "cli.common-flags": "--json, --on and --home may stand before or after any verb.",
    "cli.absent": (
        "A command without a machine or a daemon says which of the two is missing and how to get it."
    ),
    "cli.errors-as-json": (
        "With --json an error is one JSON object on standard error, with the same exit code."
    ),
    "cli.usage": (
        "Words that make no sense end with exit code 2 and one sentence that says what would."
    ),
    "cli.help": (
        "The help page names every verb with one sentence, and each verb explains its arguments."
    ),
    "cli.version": "`muster --version` says the version in one line and needs no machine.",
    # --- sim
    "sim.removals-are-caught": (
        "Each safeguard that is removed is caught by the simulation within 200 seeds, by the invariant it protects."
    ),
    "sim.profiles-hold": "With all safeguards in place every named fault profile holds.",
    "sim.swarm-draws-all": "A thousand seeds draw every fault that the simulation knows.",
    "sim.seed-replays": "A simulation seed replays to the same trace, in any process.",
    "sim.failures-are-kept": "Every simulation seed that ever failed is run with the tests.",
    "sim.invariants-hold": (
        "Under any drawn subset of loss, duplication, reordering, partition, crash, set-back, clone, clock jump, sleep and a hostile member, the invariants of the fleet hold."
    ),
    "sim.peace-converges": (
        "Real cores over a faultless network reach the same streams, settle every task and deliver every message."
    ),
    # --- tidy
    "tidy.the-verifier-can-be-read": (
        "The stand-alone verifier has at most 400 lines, so that an auditor can read all of it."
    ),
    "tidy.docs-show-sound-specs": "Every spec that a document shows passes muster check.",
    "tidy.docs-name-no-registry": "No document names a package registry or a path of one machine.",
    "tidy.docs-dependencies-are-decided": (
        "Every library the product installs stands in the decision about dependencies."
    ),
    "tidy.docs-architecture-is-a-page": "The architecture fits on a page and names every layer.",
    "tidy.docs-one-word-for-one-thing": (
        "The glossary explains each word once, and each is used in the code."
    ),
    "tidy.docs-decisions-are-whole": (
        "Every decision says status, context, options and consequences, and names sources that exist."
    ),
    "tidy.docs-links-resolve": (
        "Every link in the documents, and every document the source names, leads to something."
    ),
    "tidy.docs-name-every-area": "The README names every area of promises.",
    "tidy.docs-name-every-verb": (
        "The README names every verb for people, and no verb or option that is not there."
    ),
    "tidy.layers-hold": "Imports point down and the mind does no input or output.",
    "tidy.nothing-of-a-machine-is-committed": (
        "No committed file names a package registry host or a path of one machine."
    ),
    "tidy.errors-are-not-swallowed": "Only the one supervisor catches every exception.",
    "tidy.no-dead-files": "Every module is imported by another or is a program of its own.",
    "tidy.names-are-nouns": "No file is named for a drawer such as utils or helpers.",
    "tidy.functions-stay-short": "No function is longer than 70 lines.",
    "tidy.files-stay-small": "No file has more than 1,000 lines, and few have more than 400.",
    "tidy.promises-are-sentences": "A promise is one sentence of its own.",
    "tidy.promises-are-proved": "Every promise has a test and every test names a known promise.",
}
