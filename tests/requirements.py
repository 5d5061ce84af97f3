"""Every promise Muster makes, as a sentence. A test names the promise it proves with `@proves(id)`.

`test_requirements.py` checks both ways: a promise without a test fails the build, and so
does a test that names an unknown promise.
"""

from typing import Final

PROMISES: Final[dict[str, str]] = {
    # --- log
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
    # --- fleet
    # --- task
    # --- spec
    # --- message
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
    # --- node
    # --- cli
    # --- sim
    # --- tidy
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
