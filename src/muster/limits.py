"""Every bound in the product, each with its reason. Sizes in bytes, times in milliseconds.

A number that is nowhere else explained belongs here; a number without a reason says
`Chosen arbitrarily`, which is an honest reason.
"""

from typing import Final

# --- log -------------------------------------------------------------------------------
# A header holds at most 16 causes of 64 hex digits and a stream name; 4 KiB leaves room for all.
HEADER_BYTES_MAX: Final = 4 * 1024
# Larger bodies become blobs, so that one entry never dominates a segment.
BODY_BYTES_MAX: Final = 64 * 1024
# Deep nesting is only ever an attack on a recursive reader.
JSON_DEPTH_MAX: Final = 16
# Chosen arbitrarily; no action has more than a handful of direct causes.
CAUSES_MAX: Final = 16
# 128 bits: nobody guesses a low-entropy body from its hash.
SALT_BYTES: Final = 16
# JSON readers in other languages keep integers exact only below 2^53.
INT_ABS_MAX: Final = 2**53 - 1
# A stream row id is `stream << 40 | seq`; a trillion entries outlast any machine.
STREAM_SIZE_MAX: Final = 2**40
# Chosen arbitrarily; an agent's or operator's name with room to spare.
ACTOR_CHARS_MAX: Final = 128
# Chosen arbitrarily; the longest kind in use has a third of it.
KIND_CHARS_MAX: Final = 64
# A few machines hold a few streams each; more only costs a second parse.
STREAM_NAMES_CACHED: Final = 4096
# Ten minutes: more than honest clocks differ, less than a lease or a certificate notices.
CLOCK_AHEAD_MS_MAX: Final = 10 * 60 * 1000
# signed-note asks readers to accept 16 signatures; nobody here writes more than one.
NOTE_SIGNATURES_MAX: Final = 16
# 16 signature lines of about 200 bytes and a checkpoint of under 400.
NOTE_BYTES_MAX: Final = 8 * 1024
# A segment travels in one frame, whose payload is at most 256 KiB.
SEGMENT_ENCODED_BYTES_MAX: Final = 256 * 1024
# Beyond a thousand entries a larger batch gains nothing.
SEGMENT_ENTRIES_MAX: Final = 1000
# Of one writer at once: the history of months. Then 16 MiB a minute: ten thousand messages.
INTAKE_BYTES_MAX: Final = 256 * 1024 * 1024
INTAKE_BYTES_PER_MINUTE: Final = 16 * 1024 * 1024
# An RFC 6962 consistency proof between trees of up to 2^40 leaves.
PROOF_HASHES_MAX: Final = 41

# --- store ------------------------------------------------------------------------------
# A daemon stays below 80 MB with any history behind it: these three are all that it keeps of one.
# What is read again lies in the cache of the system, three microseconds a page; four times as much
# here made no task and no message cheaper.
PAGES_CACHED_KIB: Final = 4 * 1024
# Rows of all tables together: what a busy fleet works on, at some three megabytes.
ROWS_CACHED_MAX: Final = 4_000
# And where rows are large: whoever writes long texts must not fill the memory with them.
ROWS_CACHED_BYTES_MAX: Final = 4 * 1024 * 1024
# Bodies as they were read, of what a step works on: folds and services read each some eight times.
BODIES_REMEMBERED_MAX: Final = 512
BODY_REMEMBERED_BYTES_MAX: Final = 4 * 1024
# Some thousand entries, twice as heavy as is counted: enough for every peer that keeps up.
RECENT_BYTES_MAX: Final = 2 * 1024 * 1024

# --- task ------------------------------------------------------------------------------
# Long enough that one lost link or a paused process does not move the work, short enough that
# a dead machine is replaced within a minute.
LEASE_MS: Final = 30_000
# How long nothing must be heard of a machine before its stand-in goes on with its work: less is a
# link that comes back by itself, more than a day is a person's affair.
STANDIN_AFTER_MS_MIN: Final = 1_000
STANDIN_AFTER_MS: Final = 30_000
STANDIN_AFTER_MS_MAX: Final = 24 * 3_600_000
# Who of several stands in: a NATS cluster chooses another leader within 4 to 9 s, which must cost
# no holder its lease. Three renewals fit in, and who holds it stops before anybody else may begin.
ELECTION_TTL_MS: Final = 15_000
ELECTION_HELD_MS: Final = 12_000
ELECTION_RENEW_MS: Final = 4_000
# Chosen arbitrarily: a person who names more means another thing.
STANDINS_MAX: Final = 8
# What one of them writes there is some hundred bytes.
ELECTION_BYTES_MAX: Final = 1024
# A machine that is silent for a day has lost its work, whatever its owner set.
LEASE_MS_MAX: Final = 24 * 3_600_000
# Four beats fit in one lease: three may be lost before work moves.
BEAT_MS: Final = 7_000
# The worker gives up this much before the owner does: time to end a process tree that ignores
# the first signal.
LEASE_MARGIN_MS: Final = 10_000
# A task that took three machines with it is suspected of killing them (Dask and Ray use three).
LOSSES_MAX: Final = 3
# What an attempt may take when its template says nothing.
ATTEMPT_MS: Final = 60 * 60_000
# When an attempt counts as stuck (task/detector.py); an agent's file and a phase may say otherwise.
# A model that says nothing for so long will not: what was seen to answer did within two minutes.
MODEL_STALL_S: Final = 180.0
# A program that neither says nor does anything, asks no model and runs no tool has nothing to wait
# for: five minutes are many pauses of an honest one. Where nobody sees what it asks, a model that
# thinks looks the same, and some think for a quarter of an hour.
AGENT_SILENT_S: Final = 300.0
AGENT_UNSEEN_S: Final = 1800.0
# A build or a test may take an hour, and burns a processor meanwhile; this is for what does not.
TOOL_S: Final = 1200.0
# Chosen as people do who watch: the third time is an accident, the fifth is a loop.
TOOL_REPEATS: Final = 5
TOOL_ERRORS: Final = 5
TOOL_ERRORS_OF: Final = 20
# As much as a large task reads anew; what a model had in its cache is not counted.
TOKENS_WITHOUT_PROGRESS: Final = 300_000
# Two looks are within ten seconds of what they find.
ATTEMPT_LOOK_S: Final = 5.0
# A check is a test of what was done; one that takes longer is a phase of its own.
CHECK_MS_MAX: Final = 10 * 60_000
# How much longer than the worker the owner waits for an attempt to end: an agent that ignores the
# first signal is ended, its folder is looked at, and the news of it travels.
ATTEMPT_GRACE_MS: Final = 30_000
# How much longer still, while a worker says that it fetches, delivers or clears up: twice waiting
# for a hub that restarts and one transfer that takes as long as git may.
ATTEMPT_MOVING_MS_MAX: Final = 50 * 60_000
# Eight machines that refuse one task will not be followed by a ninth that takes it.
REFUSALS_MAX: Final = 8
# Chosen arbitrarily; a task that fails ten times needs a person, not an eleventh try.
RETRIES_MAX: Final = 10
# First wait before a task is tried again; doubled each time up to the maximum.
RETRY_DELAY_MS_MIN: Final = 1_000
RETRY_DELAY_MS_MAX: Final = 5 * 60_000
# A repository out of reach is asked again at most so late: whoever mended it waits no longer.
LOOK_AGAIN_MS_MAX: Final = 60_000
# How long a machine that failed at something comes after everybody else, doubled with each fault in
# a row: long enough to send a burst of work elsewhere, short enough to notice that it was mended.
FAULT_MS_MIN: Final = 60_000
FAULT_MS_MAX: Final = 60 * 60_000
# Machines times agents and repositories; a fleet of this product has some dozens of each.
FAULTS_MAX: Final = 4_096
# Attempts of one machine at one task that are looked at: more than all its retries make.
ATTEMPTS_OF_TASK_MAX: Final = 256
# Tasks of one owner that a machine looks through for assignments that it never answered; those that
# are beyond it are given again when their lease is over.
ASSIGNMENTS_RECALLED_MAX: Final = 10_000
# Machines that could all not begin a task, before it fails for that: one that is alone is asked
# three times, with pauses, for a disk or a network that comes back.
FAULTS_OF_TASK_MAX: Final = 3
# A busy worker has a free slot again soon; asking at once would only make it refuse again.
BUSY_DELAY_MS: Final = 250
# Money comes back when an attempt ends or a day begins; doubled each time, to half an hour.
UNPAID_DELAY_MS: Final = 15_000
# By then a machine's facts say that its agent has no login, and it is asked no more.
LOGIN_DELAY_MS: Final = 2_000
# Every candidate and why it lost is kept with the decision; sixteen fit in a body by far.
CANDIDATES_MAX: Final = 16
# Chosen arbitrarily; more open tasks than a fleet of this size works off in a day.
OPEN_TASKS_MAX: Final = 100_000
# Whoever worked off so many tasks need not know the epoch of the first: each of its entries is
# admitted once anyway.
EPOCHS_REMEMBERED_MAX: Final = 8_192
# A result's summary is read by people and put into later prompts; a report belongs in a file.
SUMMARY_CHARS_MAX: Final = 8_000
# A reason is one sentence, shown in a table; what is longer is cut.
REASON_CHARS_MAX: Final = 300
# An order older than this no longer moves a machine, whatever its owner says.
EVIDENCE_AGE_MS_MAX: Final = 30 * 24 * 3_600_000
# Twice the output that a command may have (agent/shell.py). An agent that talks for ever fills
# the logs of every machine that may read its journal.
ATTEMPT_JOURNAL_BYTES_MAX: Final = 8 * 1024 * 1024
# A machine does this many attempts of the do-nothing agent at once: it costs next to nothing.
NOOP_SLOTS: Final = 512
# Facts change slowly; tools are asked for their version this often.
FACTS_REFRESH_MS: Final = 10 * 60_000
# A tool that does not tell its version in this time is taken as absent.
PROBE_MS_MAX: Final = 4_000
# What keeps services answers at once, or a bus is away.
SERVICE_ANSWER_S: Final = 30.0
# A log of a million entries is verified in a minute or two.
REPORT_S_MAX: Final = 600.0
# A unit or a plist of ours has some kilobytes, most of them the PATH.
UNIT_BYTES_MAX: Final = 64 * 1024
# A daemon that fails is started again by its system, and never given up: a port that is taken, an
# address of a VPN or a full disk may take a night. So the pause grows, in so many steps, where the
# system can (systemd 254); elsewhere it is one that costs a small computer a few percent.
SERVICE_AGAIN_S: Final = 10
SERVICE_AGAIN_STEPS: Final = 8
SERVICE_AGAIN_S_MAX: Final = 300
SERVICE_AGAIN_ALWAYS_S: Final = 30
# A daemon that fails so often within this time is told of, and not again for six hours.
SERVICE_FAILURES: Final = 3
SERVICE_FAILURES_MS: Final = 30 * 60_000
SERVICE_TOLD_AGAIN_MS: Final = 6 * 3_600_000
# A machine that leaves waits so long until the authority's machine has all that it wrote; once it
# has, and nobody says within the grace that it left, it takes tasks again.
LEAVING_RECEIPTS_S: Final = 30.0
LEAVING_GRACE_S: Final = 60.0
# What a daemon without a journal writes into daemon.log; as much again lies in daemon.log.1.
DAEMON_LOG_BYTES_MAX: Final = 8 * 1024 * 1024

# --- message ---------------------------------------------------------------------------
# Half of a body: leaves room for the JSON escapes of ordinary text and the fields around it.
MESSAGE_TEXT_BYTES_MAX: Final = 32 * 1024
# Messages in one answer: of each it is looked who proves to have said it, and what became of it.
MESSAGES_SHOWN_MAX: Final = 1_000
# How long a message may count, or wait before a person hears of it: by then it was forgotten.
MESSAGE_TERM_MS_MAX: Final = 365 * 86_400_000
# A message that its machine has not stored after so long is told to a person, where its sender
# said nothing else: a machine that is off for a night is no alarm, one that is off for a day may
# be. What has a high priority is for somebody who is expected there; of a low one nobody is told.
MESSAGE_ALARM_MS: Final = 24 * 3_600_000
MESSAGE_ALARM_HIGH_MS: Final = 15 * 60_000
MESSAGE_ALARM_LOOK_MS: Final = 60_000
# A machine that is linked and receipts nothing for so long is told to a person: a receipt takes
# milliseconds, and a disk that stalls a few seconds.
LAG_MS: Final = 120_000
LAG_LOOK_MS: Final = 60_000
# Receipts that are written in one turn: a hundred are some ten ms.
MESSAGES_MARKED_PER_TURN: Final = 100
# Who says of one message, on one machine, that it was read or acted on: its agents, and people.
READINGS_OF_MESSAGE_MAX: Final = 256
# Chosen arbitrarily; a message to more machines goes to `all` or a group.
MESSAGE_RECIPIENTS_MAX: Final = 64
# A folder as the kernel takes one (PATH_MAX is 4096, and nobody works so deep).
SESSION_PATH_BYTES_MAX: Final = 1024
# Live sessions that are listed and watched; a person has some ten of them.
SESSIONS_MAX: Final = 500
# A session that nobody went on with for so long is gone: what is for it is its agent's then. A
# laptop that slept over night is not.
SESSION_GONE_MS: Final = 24 * 3_600_000
# Tokens of one session: each connection of its program may ask for one of its own.
SESSION_TOKENS_MAX: Final = 8
# What comes into a session with one event; programs cut at 10,000 characters or keep it in a file.
HOOK_TEXT_BYTES_MAX: Final = 8 * 1024
# Of one message; the whole of it is one question away.
HOOK_MESSAGE_BYTES_MAX: Final = 2 * 1024
HOOK_MESSAGES_MAX: Final = 10
HOOK_RECORDS_MAX: Final = 5
# So often in so long a session goes on for messages, at the end of a turn or woken, where its
# person says nothing. Chosen arbitrarily: two agents that answer each other cost what they cost,
# and one that serves others while its person is away is not deaf for ever.
HOOK_CONTINUED_MAX: Final = 8
HOOK_CONTINUED_MS: Final = 8 * 3_600_000
# Programs that wait beside a session that rests; each is a link of those of this user.
SESSION_WAITS_MAX: Final = 64
# A session that no hook told of for so long may rest: where a person stops a turn no hook says it.
SESSION_SILENT_MS: Final = 30_000
# What was handed to one session wakes no other one of its agent for so long.
HOOK_TAKEN_MS: Final = 5 * 60_000
# The beginning of what a program tells its hook; in hex it fits into one frame.
HOOK_INPUT_BYTES_MAX: Final = 96 * 1024
# What was handed out and not said to be printed is handed out again after so long.
HOOK_HANDED_MS: Final = 1_000
# Who wrote a file longer ago than this does not write it at the same time.
HOOK_TOUCHED_MS: Final = 15 * 60_000
# Records and files that are remembered for sessions to be told of.
HOOK_RECORDS_KEPT: Final = 200
HOOK_FILES_KEPT: Final = 2_000
# Files of one call between machines about what sessions write: 4 KiB of prints.
SAME_FILES_PER_CALL: Final = 64
# Sessions of one machine that are named for one file.
SAME_FILE_WRITERS_MAX: Final = 8
# Meetings of a session here with one of another machine that one call makes: some 5 ms of the loop.
SAME_FILE_PAIRS_PER_CALL: Final = 512
# Calls to each machine are so far apart, whatever is written here.
SAME_FILE_APART_MS: Final = 1_000
# Whoever goes on writing a file is told of again after so long: sooner it would be no news.
SAME_FILE_SAID_APART_MS: Final = 60_000
# Of one machine: one that writes all the time, and has all of it answered, makes three a second.
SAME_FILE_CALLS_PER_MINUTE: Final = 240
# A session is told of so many meetings with one machine within HOOK_TOUCHED_MS: who meets oftener
# knows by now, and a machine that lies has no more room either.
SAME_FILES_TOLD_MAX: Final = 12
# What waits for the next event of one session.
SAME_FILES_WAITING_MAX: Final = 64

# --- memory ----------------------------------------------------------------------------
# What a person writes down about one thing; more is a file of the repository, and a pointer to it.
MEMORY_TEXT_BYTES_MAX: Final = 16 * 1024
# An agent's lesson: some 1,600 tokens, most of a digest already.
MEMORY_AGENT_TEXT_BYTES_MAX: Final = 4 * 1024
MEMORY_REASON_BYTES_MAX: Final = 4 * 1024
# Versions that one version replaces: the heads of a conflict, one for each of so many machines.
MEMORY_OVER_MAX: Final = 16
MEMORY_ABOUT_MAX: Final = 16
# Marks on one letter: the stream-safe form of UAX 15 has as many.
MEMORY_MARKS_MAX: Final = 30
# What a question about one key reads is shared by the machines of the fleet: so it costs the same
# however many of them flood it, and a machine's share is its own, whatever the others write. The
# least of it is what one machine has a use for: it replaces what it wrote before.
# Versions of the same text that are looked at, the newest, for what was refuted.
MEMORY_ALIKE_MAX: Final = 32
MEMORY_ALIKE_MIN: Final = 4
MEMORY_TAGS_MAX: Final = 16
# Versions of one key that are read for its past, the newest: who writes one more often than that
# has something else to say each time.
MEMORY_VERSIONS_READ_MAX: Final = 128
MEMORY_VERSIONS_READ_MIN: Final = 24
# The same for what counts now, and as many that cite an order: twenty milliseconds at worst.
MEMORY_VERSIONS_COUNTED_MAX: Final = 64
MEMORY_VERSIONS_COUNTED_MIN: Final = 8
# What else decides about a key (versions of other keys that are over its own, texts alike, what is
# over those): at each of these steps so many, the newest.
MEMORY_OTHERS_READ_MAX: Final = 48
MEMORY_OTHERS_READ_MIN: Final = 8
# Orders that are looked at for one question: a proof costs as much as five rows.
MEMORY_PROOFS_MAX: Final = 64
MEMORY_PROOFS_MIN: Final = 16
# The newest versions whose keys a list looks at, a key in each turn of the loop.
MEMORY_KEYS_LOOKED_MAX: Final = 5_000
# Keys in one answer: of each it is found out what counts, and who proves to have said it.
MEMORIES_SHOWN_MAX: Final = 500
# What one reading names: more lines no digest has, and more versions nobody reads at once.
MEMORY_SHOWN_MAX: Final = 64
# Entries that the index of texts takes in with one turn, and what their bodies weigh together: some
# ten milliseconds.
INDEX_PAGE_ENTRIES: Final = 100
INDEX_PAGE_BYTES: Final = 64 * 1024
# A question in words: several sentences; a whole text is no question.
RECALL_BYTES_MAX: Final = 4 * 1024
# Records like one that is written down: told to its writer, of those that count and of those that
# are refuted; places that are looked at for them, and what of the text is asked for.
SIMILAR_MAX: Final = 3
SIMILAR_LOOKED_MAX: Final = 24
SIMILAR_CHARS_MAX: Final = 2_000
# What one question finds, and places that are looked at until so many of them count.
RECALLED_MAX: Final = 50
RECALL_LOOKED_MAX: Final = 400
# Tokens of what an agent is told when it begins, where its spec says nothing else. With fewer, what
# people pinned and one line of each section would not fit; with more, it would crowd out a prompt.
DIGEST_TOKENS: Final = 2_000
DIGEST_TOKENS_MIN: Final = 2_000
DIGEST_TOKENS_MAX: Final = 6_000
# Tokens of what people's rules take together, in a digest of any budget: always told, and whole.
MEMORY_PINNED_TOKENS_MAX: Final = 700
# Of a text in a line that is no rule: whoever wants more asks for the record.
MEMORY_LINE_TOKENS_MAX: Final = 160
# What one attempt writes down: a lesson each is what is wanted, and no diary.
MEMORY_WRITES_PER_ATTEMPT_MAX: Final = 20
# A session of a program may last for weeks: as many as an attempt, in each of these.
# What all live sessions of a machine write down in an hour: ten of them at their bound. A program
# may begin any number of sessions.
MEMORY_WRITES_OF_SESSIONS_MAX: Final = 200
MEMORY_WRITES_PER_MS: Final = 3_600_000
# Keys of one scope: who has more than that finds nothing by a look at them. Warned of at half.
MEMORY_RECORDS_MAX: Final = 20_000
# Bodies that one step erases: each costs half a millisecond, more where it is long.
MEMORY_ERASED_IN_STEP_MAX: Final = 16
# Erasures that one turn looks at, after a start: some ten milliseconds.
MEMORY_ERASURES_LOOKED_MAX: Final = 100
# Erasures without a proof that are remembered by the order that they cite; of anybody, so a
# member that writes nothing else costs a megabyte.
MEMORY_UNPROVEN_MAX: Final = 10_000
# A folder that is imported: more files, or larger ones, are no notes of what is known.
IMPORT_FILES_MAX: Final = 5_000
IMPORT_FILE_BYTES_MAX: Final = 64 * 1024
IMPORT_DEPTH_MAX: Final = 32
# What one call takes in or gives of it: an answer stays small, and a step short.
IMPORT_CALL_NOTES: Final = 100
IMPORT_CALL_BYTES: Final = 1024 * 1024
# Chosen arbitrarily: a source, a reason or a query on one line.
MEMORY_LINE_CHARS_MAX: Final = 400

# --- context files ---------------------------------------------------------------------
# What stands in an entry itself; more is a blob. As base64, with its names, it fits into a body.
CONTEXT_INLINE_BYTES_MAX: Final = 44 * 1024
# Versions that one version replaces: the heads of a conflict, one for each of so many machines.
CONTEXT_OVER_MAX: Final = 16
# Of a path. Names nest no deeper by hand, and every disk takes as much.
CONTEXT_PATH_BYTES_MAX: Final = 1024
CONTEXT_PATH_DEPTH_MAX: Final = 32
# What every disk has room for in one name.
CONTEXT_NAME_BYTES_MAX: Final = 255
# Versions of one path that are shown of each machine, the newest; as of one key of memory.
CONTEXT_VERSIONS_READ_MAX: Final = 200
# Heads of one path that are read of each machine, the first ones: more than it can have by hand.
CONTEXT_HEADS_MAX: Final = 200
# Versions that are looked at for what two heads come from; 1,000 cost some 50 ms.
CONTEXT_ANCESTORS_MAX: Final = 1_000
# Rows that are read for one question about files before the rest is put off to the next step.
CONTEXT_STEP_ROWS: Final = 2_000
# Paths of one folder that are brought to its disk: more than people keep in one, and no more than
# one answer may hold.
CONTEXT_PATHS_MAX: Final = 50_000
# Paths of which no version counts that are told: enough to see that there are some.
CONTEXT_UNHEARD_MAX: Final = 1_000
# Spellings of one path that are looked at: disks without case have room for one of them.
CONTEXT_SPELLINGS_MAX: Final = 16
# The list of what a folder leaves out: some hundred lines, each tried on each name.
CONTEXT_IGNORE_LINES_MAX: Final = 200
CONTEXT_IGNORE_CHARS_MAX: Final = 200
# What is larger is synced where somebody said so: few texts are, and each edit costs all of it.
CONTEXT_ASK_BYTES: Final = 1024 * 1024
# Replaced versions keep their bytes so long, and the newest of a file whatever their age.
CONTEXT_KEPT_MS: Final = 30 * 24 * 3_600_000
CONTEXT_KEPT_NEWEST: Final = 50
# What has fewer bytes is hardly larger than what is kept of it.
CONTEXT_LET_GO_BYTES_MIN: Final = 256
# Streams of which a disk says how far it has come, and replaced versions that it is made of yet: a
# folder has fewer writers, and a disk with more of the latter says nothing until it has fewer.
CONTEXT_STREAMS_MAX: Final = 256
CONTEXT_KEPT_MAX: Final = 64
# Versions that one entry says again: 17 KB.
CONTEXT_REPLACED_MAX: Final = 256
# Others that are over one version, or have its bytes, as far as they are looked at.
CONTEXT_BESIDE_MAX: Final = 16
# What one step looks at and lets go; together some five milliseconds.
CONTEXT_LET_GO_LOOKED_MAX: Final = 64
CONTEXT_LET_GO_IN_STEP_MAX: Final = 8
# Rows that are read for what one page of them looks at, before the next one begins.
CONTEXT_LET_GO_READ_MAX: Final = 300
# What a folder should not have more of, all its files together; more is told, and synced.
CONTEXT_FOLDER_BYTES: Final = 100 * 1024 * 1024

# --- git -------------------------------------------------------------------------------
# A first clone of a large repository over a thin link takes minutes; nothing useful takes an hour.
GIT_TIMEOUT_MS: Final = 15 * 60_000
# A git that outlived its daemon has ended by then, or hangs; who wants to work there tries again.
GIT_OUTLIVED_MS_MAX: Final = 5 * 60_000
# A person waits for the first copy of a large repository and may end it by hand.
GIT_ADD_MS_MAX: Final = 6 * 3_600_000
# A server that is there says what it has within seconds; a run waits for this.
GIT_FOLLOW_ASK_MS_MAX: Final = 20_000
# What an origin has new is a day's work. One that has more is added anew.
GIT_FOLLOW_MS_MAX: Final = 3_600_000
# A run starts from what is here, and says so, where its origin does not answer in time. Less than
# what the owner waits for the keeper's answer, which says why.
GIT_FOLLOW_WAIT_MS_MAX: Final = 25_000
# Lists of refs and files of very large repositories stay well below this.
GIT_OUTPUT_BYTES_MAX: Final = 64 * 1024 * 1024
# Only one line of it is shown.
GIT_ERROR_BYTES_MAX: Final = 256 * 1024
# The hub answers from one table; a hook that waits longer keeps a pusher waiting for nothing.
GIT_HOOK_MS_MAX: Final = 10_000
# One attempt pushes one ref and an owner three; more in one push is not ours.
GIT_PUSH_REFS_MAX: Final = 64
# Chosen arbitrarily; a larger push is a mistake such as a committed disk image.
GIT_PUSH_BYTES_MAX: Final = 4 * 1024 * 1024 * 1024
# One file of an attempt's commit: the push would be refused, and a sparse file of a terabyte takes
# an hour to read before that is known.
GIT_FILE_BYTES_MAX: Final = GIT_PUSH_BYTES_MAX
# Two phases of as many matches as one may have: their ids take a third of an entry, and to merge
# them takes some half a minute.
GIT_BASES_MAX: Final = 512
# Each commit that is replayed onto a branch starts a few programs; more nobody reads one by one.
GIT_REPLAYED_MAX: Final = 1_000
# A branch that others push to every second is landed on all the same, if not for ever.
GIT_LAND_TRIES_MAX: Final = 5
# An interrupted git leaves its locks and half a push; older than a push may take, nobody has them.
GIT_LOCK_AGE_MS_MAX: Final = 20 * 60_000

# A million files go in a minute or two; a network disk that hangs must not hold a task for ever.
REMOVAL_MS_MAX: Final = 20 * 60_000

# After a restore: settled branches that are looked for, and how long until one that is gone is
# asked for again. Chosen arbitrarily; who has more to look for finds it with `muster fetch`.
BRANCHES_LOOKED_FOR_MAX: Final = 1_000
BRANCH_RETRY_MS: Final = 10 * 60_000

# --- fleet -----------------------------------------------------------------------------
# The longest DNS label: a machine name can always be a host name.
NAME_CHARS_MAX: Final = 63
# A record is about 1.5 KiB; the rest is room for roles and later fields.
RECORD_BYTES_MAX: Final = 8 * 1024
# A statement holds hashes and names, never arguments.
STATEMENT_BYTES_MAX: Final = 4 * 1024
# A cut is 110 to 210 bytes, so it names 230 to 440 streams: more than an honest machine writes.
# Quoted as text it stays below the 64 KiB of a body.
REVOCATION_BYTES_MAX: Final = 48 * 1024
# Refusals of one owner's assignments behind which there is no order: an honest owner whose orders
# grew old is told soon enough, and a member cannot make others write as much as it does.
UNPROVEN_PER_MINUTE_MAX: Final = 60
# A renewal with other sub-keys is an entry of the authority's machine and makes the roster anew.
# They come from the seed, so an honest machine has none for years.
KEYS_CHANGED_MS_MIN: Final = 10 * 60 * 1000
# Of so many of our newest attempts it is looked whether what they delivered is here: a stat each.
BLOBS_LOOKED_FOR_MAX: Final = 512
# How many grants (and forks) the end of an operator's key names: more than one person takes from
# others in years. Quoted as text it stays below the 64 KiB of a body.
OPERATOR_END_NAMES_MAX: Final = 300
OPERATOR_END_BYTES_MAX: Final = 48 * 1024
# Each is some 400 bytes in the answer to whoever joins, which has room for two records and
# certificates.
OPERATORS_MAX: Final = 64
# A join answer carries two records, two certificates and every operator.
JOIN_BYTES_MAX: Final = 64 * 1024
# About 100 characters are used; more than this was never one of our strings.
INVITE_CHARS_MAX: Final = 512
# More than there are verbs that a device could hold, with room for objects.
DEVICE_RIGHTS_MAX: Final = 64
# Another fleet's doors that a card names, and the fleets that one deals with: chosen arbitrarily.
PEER_DOORS_MAX: Final = 8
PEERS_MAX: Final = 64
# A certificate of a kilobyte and eight doors, in base64; more than this was never one of ours.
PEER_CARD_CHARS_MAX: Final = 16 * 1024
# The text of a letter: escaped twice, its document and a record still fit into an entry's body.
PEER_TEXT_BYTES_MAX: Final = 8 * 1024
PEER_LETTER_BYTES_MAX: Final = 52 * 1024
# After this a letter is neither sent nor taken: what is older was seen by nobody for a week.
PEER_LETTER_LIFE_MS: Final = 7 * 24 * 60 * 60 * 1000
# What a fleet may have on its way to machines here that are away, and how much it may bring at all:
# more than people say, and at most 30 MB in a day.
PEER_UNHELD_MAX: Final = 100
PEER_LETTERS_PER_DAY_MAX: Final = 500
# Calls of one fleet in a minute, over its few links; what is more is refused unread.
PEER_CALLS_PER_MINUTE_MAX: Final = 120
PEER_LINKS_MAX: Final = 4
# Letters of our own that wait for another fleet at once.
PEER_WAITING_MAX: Final = 500
# What is asked of another fleet: escaped twice, it fits into an entry beside a record.
PEER_SPEC_BYTES_MAX: Final = 24 * 1024
# What came of it, of all its agents together: what fits into a report of six-byte signs.
PEER_SAID_CHARS_MAX: Final = 2_000
# What of a file goes into one call, in base64 beside its document; and what a grant lets of one
# file where it does not say.
PEER_PIECE_BYTES_MAX: Final = 160 * 1024
PEER_FILE_BYTES: Final = 64 * 1024 * 1024
# A task begins and ends; the rest is room.
PEER_REPORTS_MAX: Final = 1_000
# An order lives five minutes; this leaves room for clocks, and little for who finds an old one.
DEVICE_ORDER_LIFE_MS: Final = 10 * 60 * 1000
# Why somebody was shut out is a sentence, and shares the document with the cuts.
REVOCATION_REASON_CHARS_MAX: Final = 500
# Long enough for the other machine to be fetched from home, short enough to forget a lost string.
INVITE_LIFE_MS: Final = 24 * 60 * 60 * 1000
# For sshd, NATS and foreign TLS stacks, which look at the calendar; renewed at half life.
CERTIFICATE_LIFE_MS: Final = 30 * 24 * 60 * 60 * 1000
# What is wrong with a machine for a while (node/services/conditions.py): two looks are a minute.
CONDITIONS_LOOK_MS: Final = 30_000
# A large repository and its build take as much; less than the other is a log that cannot grow.
DISK_LOW_BYTES: Final = 1024**3
DISK_CRITICAL_BYTES: Final = 128 * 1024**2
DISK_FILES_PERCENT_MIN: Final = 5
# A machine that asks a time server is within a second of it.
PEER_SKEW_MS: Final = 30_000
# A task that a free machine fits is given to it within a step.
BACKLOG_MS: Final = 10 * 60_000
# Those before them may want what no machine has, and hide nobody behind them.
BACKLOG_LOOKED_AT: Final = 20
# A machine that is away for so long, and owes something, is told of; a restart takes seconds.
ABSENT_MS: Final = 5 * 60_000
ABSENT_LOOK_MS: Final = 30_000
# Clocks of personal machines differ by seconds; a certificate or order is valid this much earlier.
CLOCK_SKEW_MS: Final = 5 * 60 * 1000
# A schedule signed once may run for a year, then a person looks at it again.
STATEMENT_LIFE_MS_MAX: Final = 366 * 24 * 60 * 60 * 1000
# Chosen arbitrarily; a role, label, verb or member list longer than this is a mistake.
FLEET_LIST_MAX: Final = 256
# Where one machine may be reached: two addresses of each of seven channels. Each is tried in turn.
WAYS_MAX: Final = 16
# Threads and their members that one machine keeps, the newest: more than people have to say, and so
# few that the roster, which every entry about the fleet makes anew, costs a tenth of a second.
GROUP_ROWS_OF_KEEPER_MAX: Final = 8_192
# In a fleet of more streams than its machines need, what is said in each of them is read once.
STREAMS_READ_WHOLE_MAX: Final = 256
# What all their memberships may say of where each begins to read: some thousands of them.
GROUP_BYTES_OF_KEEPER_MAX: Final = 4 * 1024 * 1024
# What one key's signature makes a machine say again, where a forked stream told of it: more takings
# and orders than a person signs in a year, a few megabytes where a key that may give was stolen.
LASTING_PER_SIGNER_MAX: Final = 4096

# --- spec ------------------------------------------------------------------------------
# Every byte is signed, stored by every machine of the run and read by a person before it runs.
SPEC_BYTES_MAX: Final = 256 * 1024
# A spec needs five levels; deeper nesting is only ever an attack on a recursive reader.
SPEC_DEPTH_MAX: Final = 16
# Reading one value takes some 30 microseconds; this keeps the worst file below a second.
SPEC_NODES_MAX: Final = 10_000
# Chosen arbitrarily; a person no longer oversees a run of more phases.
SPEC_PHASES_MAX: Final = 500
# A hundred mistakes are enough to see that the file is another one than was meant.
SPEC_PROBLEMS_MAX: Final = 100
# A prompt or script longer than this belongs into a file of the repository.
SPEC_TEXT_BYTES_MAX: Final = 16 * 1024
# With `do`, `check` and `env` at their maxima an order still fits into an entry's body.
SPEC_ORDER_BYTES_MAX: Final = 48 * 1024
# An idempotency key is a name or a hash; a longer one is a mistake.
KEY_CHARS_MAX: Final = 200
# As a spec is written into `run.open`, beside the operator's statement.
SPEC_LOG_BYTES_MAX: Final = BODY_BYTES_MAX - 4 * 1024
# What is given for one input of a run: a quarter of a body, for a task's opening has it twice, in
# the order and among the values.
INPUT_BYTES_MAX: Final = 16 * 1024
# Chosen arbitrarily; a phase with more matches is to be split by folder.
EACH_MATCHES_MAX: Final = 256
# Every change of a run looks at all its tasks; with these it takes some ten milliseconds.
RUN_TASKS_MAX: Final = 10_000
# A value that a phase hands on, whole: more than a model reads at once; beyond it belongs a file.
VALUE_BYTES_MAX: Final = 1024 * 1024
# All values that one task is given. Chosen arbitrarily: they are held in memory.
VALUES_BYTES_MAX: Final = 16 * 1024 * 1024
# What of a value stands in entries, as it is written there; a longer one is a blob.
VALUE_INLINE_BYTES_MAX: Final = 16 * 1024
# What people see of a value that is not in the entry.
VALUE_SHOWN_BYTES: Final = 4 * 1024
# MAX_ARG_STRLEN of Linux: NAME=value with its final NUL.
VARIABLE_BYTES_MAX: Final = 128 * 1024
# macOS gives a program's arguments and variables 1 MiB together, Linux 2 MiB.
ENVIRONMENT_BYTES_MAX: Final = 512 * 1024
# A prompt that repeats a long value ends here, before the agent.
PROMPT_BYTES_MAX: Final = 1024 * 1024
# Every racer costs a whole agent; more than eight answers nobody compares.
RACERS_MAX: Final = 8
# A work that is rejected three times is not what was meant; after nine a person has to say so.
REVIEW_ROUNDS: Final = 3
REVIEW_ROUNDS_MAX: Final = 9
# A reviewer that forgot the form of its verdict is asked once more: that says nothing of the work.
REVIEW_RETRIES: Final = 1
# What all of them say goes into one prompt; more than eight opinions nobody reconciles.
REVIEWERS_MAX: Final = 8
# A verdict stands in one entry beside what its agent said, and in the prompt of the next round.
REVIEW_BYTES_MAX: Final = 24 * 1024
REVIEW_TEXT_CHARS_MAX: Final = 2_000
REVIEW_REASONS_MAX: Final = 32
REVIEW_COMMENTS_MAX: Final = 100
# Of each owner; to ask of so many whose they are takes a tenth of a second, with pauses.
TRUST_SHOWN_MAX: Final = 500
# Read in one step where a rule is held against a change; it asks for 1,000 in a row at most.
TRUST_RULE_MAX: Final = 5_000
# More clauses no range of versions needs; also of what a project's own files say.
RANGE_CHARS_MAX: Final = 128
# What a phase may take when it says nothing.
PHASE_TIMEOUT_MS: Final = 30 * 60_000
# Longer attempts than a day hide a hung agent; longer waits than a month hide a forgotten run.
PHASE_TIMEOUT_MS_MAX: Final = 24 * 3_600_000
PHASE_DEADLINE_MS_MAX: Final = 31 * 24 * 3_600_000

# --- channel ---------------------------------------------------------------------------
# Four of the largest bodies; small enough that a call is never stuck long behind one frame.
FRAME_PAYLOAD_BYTES_MAX: Final = 256 * 1024
# u8 version, u8 type, u32 channel id, then the payload (docs/spec/frames.md).
FRAME_BYTES_MAX: Final = FRAME_PAYLOAD_BYTES_MAX + 6
# What a WebSocket close frame has room for (RFC 6455, 5.5); the other channels follow.
CLOSE_REASON_BYTES_MAX: Final = 123
# Unread frames a link keeps before it stops reading: 16 of the largest are 4 MiB.
LINK_UNREAD_FRAMES_MAX: Final = 16
# Unread bytes a link keeps before it stops reading, where the channel can count them.
LINK_UNREAD_BYTES_MAX: Final = 1024 * 1024
# Written but unsent bytes above which a sender waits: one largest frame.
LINK_UNSENT_BYTES_MAX: Final = 256 * 1024
# Carrier NATs forget an idle flow after 30 s or more, so 10 s keeps it alive.
KEEPALIVE_INTERVAL_MS: Final = 10_000
# Two intervals: one lost ping or a busy peer does not cut a link.
KEEPALIVE_TIMEOUT_MS: Final = 20_000
# A TLS or HTTP handshake takes five round trips at most; who needs longer is stalling.
HANDSHAKE_TIMEOUT_MS: Final = 10_000
# A polite goodbye is worth a round trip to the other side of the world, not more.
LINK_CLOSE_TIMEOUT_MS: Final = 2_000
# Links that proved no machine: only enrolment uses them, with one call, and each lives for seconds.
LINKS_UNPROVEN_MAX: Final = 32
LINK_UNPROVEN_MS_MAX: Final = 60_000
STRANGER_CALLS_MAX: Final = 8
# Connections that have not proved a machine, links among them; a handshake is over in a second.
DOOR_CONNECTIONS_MAX: Final = 128
# A whole house behind one address comes back at once after a hub's restart; a flood does not stop.
DOOR_KNOCKS_BURST: Final = 64
DOOR_KNOCKS_PER_S: Final = 64
# Addresses whose knocks are remembered; a hundred bytes each.
DOOR_ADDRESSES_MAX: Final = 4096
# Descriptors that strangers leave to git, attempts and machines; the programs of this user fewer.
DESCRIPTORS_KEPT: Final = 256
DESCRIPTORS_KEPT_LOCAL: Final = 64
# What a daemon asks for; few enough for old programs below it that close each number in turn.
DESCRIPTORS_WANTED: Final = 8192
# Programs of this user that talk to the daemon at once, and how long one may say nothing at all.
LINKS_LOCAL_MAX: Final = 256
LINK_LOCAL_SILENT_MS_MAX: Final = 10_000
# Both ends may dial, and a link that died is noticed late; an honest machine has two of them.
LINKS_OF_MACHINE_MAX: Final = 8
# A link over which nothing came for so long, while another one of its peer is heard, may be dead.
LINK_HEARD_APART_MS: Final = 10_000
# A machine that is up answers within this over a link that carries; asked again less often, and a
# link that carries again is known to within the second.
PROOF_MS: Final = 3_000
PROOF_MS_MAX: Final = 6_000
# Pause before the second try; most cuts are a restart and heal within a second.
BACKOFF_FIRST_MS: Final = 500
# A machine that comes back is found within half a minute.
BACKOFF_MS_MAX: Final = 30_000
# A link that lived this long was good; the next loss starts from the first pause again.
BACKOFF_STABLE_MS: Final = 10_000
# sun_path of Linux is 108 bytes with the final zero.
SOCKET_PATH_BYTES_MAX: Final = 107

# What may be under way in one direction of a relayed link: so much of each lies in the memory of
# the machine in the middle when one end reads slowly.
RELAY_WINDOW_BYTES: Final = 256 * 1024
# One data frame of a relayed link, so that the frames of others get between.
RELAY_DATA_BYTES_MAX: Final = 64 * 1024
# What a frame costs beside its bytes: a flood of tiny ones is a flood, too.
RELAY_FRAME_BYTES: Final = 64
# An honest end grants a quarter of the window at a time; crumbs would be a flood of credits.
RELAY_GRANT_BYTES_MIN: Final = RELAY_WINDOW_BYTES // 8
# Relayed links through one link, at the middle and at an end: a fleet of so many machines that only
# dial. With windows full in both directions the middle holds less than an outbox may.
LINK_RELAYS_MAX: Final = 64
# How many a machine may ask one middle for in a minute; honest ones ask when a link comes or goes.
RELAYS_PER_MINUTE_MAX: Final = 120
# Machines in the middle that are asked in one try, hubs first.
RELAY_MIDDLES_MAX: Final = 4

# One packet of a mailbox: a segment and what goes with it; and how many are taken at once.
PACKET_BYTES_MAX: Final = 1024 * 1024
POST_TAKEN_MAX: Final = 64
# What lies in one mailbox, and is said to be too much there.
MAILBOX_BYTES_MAX: Final = 64 * 1024 * 1024
# Servers of NATS that are one cluster: one may be away, and two agree.
NATS_SERVERS: Final = 3
# Accounts that one asks for in one call; each is about 3 KiB.
NATS_ACCOUNTS_MAX: Final = 24
# In a repository: what one machine has lying there for one other, and for all; and what is read of
# strangers: branches, what one fetch brings, and what all of them make a copy here grow to.
GIT_BOX_BYTES_MAX: Final = 8 * 1024 * 1024
GIT_BOX_FILES_MAX: Final = 256
GIT_BOXES_MAX: Final = 256
GIT_BRANCH_BYTES_MAX: Final = 128 * 1024 * 1024
GIT_POST_BRANCHES_MAX: Final = 256
GIT_POST_FETCH_BYTES_MAX: Final = 2 * GIT_BRANCH_BYTES_MAX
GIT_POST_COPY_BYTES_MAX: Final = 1024 * 1024 * 1024
GIT_POST_ACKS_MAX: Final = 4096
# A server that says nothing is given up on: what it is asked first, and what carries bytes.
GIT_POST_ASK_MS_MAX: Final = 30_000
GIT_POST_MS_MAX: Final = 300_000
# The signed head of a parcel, and what travels in one. age adds its header, and 16 bytes to each
# 64 KiB.
PARCEL_HEAD_BYTES_MAX: Final = 1024
PARCEL_ITEMS_MAX: Final = 4096
# Network cards that a machine says of itself, and networks of each.
CARDS_MAX: Final = 8
CARD_SUBNETS_MAX: Final = 4
# A machine is sent a packet that wakes it so often at most; so often it is looked for who waits.
WAKE_APART_MS: Final = 300_000
WAKE_LOOK_MS: Final = 5_000
# Where no packet was sent at all, that is tried again after so long.
WAKE_AGAIN_MS: Final = 30_000
# Asides of one parcel that count, and parcels that are left in a minute because one asked for it.
PARCEL_ASIDES_MAX: Final = 4
PARCEL_ANSWERS_PER_MINUTE_MAX: Final = 12
# A piece of a blob in one parcel; how many of them one question is answered with, if that many may
# lie there; and questions for blobs that one machine has answered at one place in a minute.
BLOB_PART_BYTES_MAX: Final = 900_000
BLOB_PARTS_AHEAD_MAX: Final = 8
BLOB_WANTS_PER_MINUTE_MAX: Final = 30
PARCEL_BYTES_MAX: Final = PACKET_BYTES_MAX - 4096

# --- sync ------------------------------------------------------------------------------
# The entries of one segment as we make it: with header, seal and proof it still fits into a frame.
SEGMENT_SLICE_BYTES: Final = 160 * 1024
# What may be under way on one stream to one peer before it confirms: a slow peer costs no more.
LANE_BYTES_MAX: Final = 2 * 1024 * 1024
# Streams of which nothing is here but that a peer claims to hold, and how often each is asked for.
STREAMS_CLAIMED_MAX: Final = 2048
STREAM_ASKS_MAX: Final = 3
# Streams of one machine, which has one for each scope in each of its incarnations.
STREAMS_OF_MACHINE_MAX: Final = 4096
# Segments made for one link in one step: whoever asks for much waits, and the others do not.
STEP_LINK_BYTES_MAX: Final = 8 * 1024 * 1024
# Receipts of streams of which nothing is here; and names that anybody may say, as remembered.
EARLY_RECEIPTS_MAX: Final = 1024
NAMES_REMEMBERED_MAX: Final = 16_384
# A head with its seal is about 600 bytes; 200 of them fit into a frame with room to spare.
OFFER_HEADS_MAX: Final = 200
# An honest peer is refused now and then (a race, an old version); one that is refused this often on
# one link is broken or hostile, and dialling again costs it more than it costs us.
LINK_FAULTS_MAX: Final = 100
# Half a kilobyte each; in a full mesh every cosign comes once from each neighbour.
COSIGNS_KNOWN: Final = 4096
# A search for the first difference takes about forty questions; a peer that leaves it unanswered
# for this long is given up, and another one asked.
DISPUTE_MS: Final = 30_000

# To end a stream of a revoked machine takes half a millisecond, and again for each so many entries
# it has, if some count no more. A tick has room for ten milliseconds of it: others are served too.
BURIED_PER_STEP_MAX: Final = 20
BURIED_ENTRIES_AS_STREAM: Final = 16

# --- node ------------------------------------------------------------------------------
# A call and its answer; a spec of 256 KiB as JSON text fits, several large answers go in parts.
CALL_BYTES_MAX: Final = 8 * 1024 * 1024
# What a list holds of texts that others wrote; with names and escapes it stays below a call.
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
# A part of an answer, below the payload of a frame.
REPLY_PART_BYTES: Final = 200 * 1024
# A call goes to its machine directly or through one hub.
CALL_HOPS_MAX: Final = 2
HELLO_BYTES_MAX: Final = 1024
# The signed word of a process that it lives: five short fields, a kind and a signature.
LIFE_BYTES_MAX: Final = 640
# Two copies of a machine answer each other this often; four answers lost and it is taken for gone.
LIFE_ANSWER_MS: Final = 5_000
LIFE_SILENT_MS: Final = 25_000
# Machines of which lives are remembered, and words of each: the newest few tell a copy apart. Of
# more lives it is known how far they came, so that an old word that is shown again brings nothing.
LIVES_KEPT: Final = 1_024
LIVES_PER_MACHINE: Final = 8
LIVES_REMEMBERED: Final = 256
# Two copies of a machine say 24 words a minute to each other; each of them goes on once.
LIVES_OF_MACHINE_PER_MINUTE_MAX: Final = 60
# A fleet of a hundred machines that all start at once says a word each; more is no honest link.
LIVES_PER_MINUTE_MAX: Final = 600
# A machine is restored once or twice while somebody tries; more is no accident, and stays said.
SETBACKS_PER_HOUR_MAX: Final = 4
# Signs of a lost past that are kept in words; each start and each peer may find one more.
DOUBT_REASONS_MAX: Final = 8
# A refusal is one sentence; what it quotes of a hostile text must not make it a page.
SENTENCE_CHARS_MAX: Final = 600
# `thread --add` and the words of a message.
ARGUMENT_WORDS_MAX: Final = 4096
# Calls of one link that others are still to answer, and streams that it still listens to.
LINK_CALLS_OPEN_MAX: Final = 256
# Streams of one link that were accepted; most are a process of ours.
LINK_STREAMS_MAX: Final = 64
# What one side of a stream may send before the other grants more: a full second at 1 MiB/s.
STREAM_WINDOW_BYTES: Final = 1024 * 1024
# One data frame; below the frame's own 256 KiB, so that heads and entries get between.
STREAM_DATA_BYTES_MAX: Final = 64 * 1024
# What a step may tell whoever follows something and has not been told yet: some 5 MB of changes.
STREAM_NEWS_MAX: Final = 10_000
# Chosen arbitrarily: `tail` reads so many entries at once, with their bodies, some ms of a step.
TAIL_ENTRIES_MAX: Final = 100
# What came before the end of a stream is passed on for so long; then the end is.
STREAM_END_MS_MAX: Final = 2_000
# What waits to be sent to a peer that does not read. A stranger's answers are sentences.
OUTBOX_BYTES_MAX: Final = 64 * 1024 * 1024
OUTBOX_STRANGER_BYTES_MAX: Final = 1024 * 1024
# Lines about others' faults in the daemon's own log; the rest is counted.
NOTES_PER_MINUTE_MAX: Final = 120
# Incidents about what failed here: enough to see what is wrong, and no way to fill the fleet's log.
FAILURES_PER_HOUR_MAX: Final = 32
# Frames of one step, or one that is larger: some hundred entries about tasks take thirty ms.
# A burst of segments is a step for each, and what came meanwhile is not behind all of them.
STEP_FRAMES_BYTES_MAX: Final = 192 * 1024
# What one step reacts to; the rest waits for the next, so that no step stands still for good.
STEP_REACTIONS_MAX: Final = 20_000
# Owner, runs and worker of one machine ask each other in rounds; an honest step takes a handful.
STEP_ROUNDS_MAX: Final = 2_000
# One `submit`; what no statement signs (a task's priority) must not reach everybody's place.
TASKS_SUBMIT_MAX: Final = 10_000
TASK_PRIORITY_MAX: Final = 1_000_000
INVITE_HOURS_MAX: Final = 366 * 24
# Chosen arbitrarily; what is to last longer is better looked at again.
GRANT_DAYS_MAX: Final = 3_650
# What agents hand on: more than a person looks at in a day, and deeper than anybody follows.
DELEGATIONS_MAX: Final = 1_000
DELEGATION_DEPTH_MAX: Final = 3
# Of one attempt; chosen arbitrarily. Work that falls into more pieces is a spec with `each`.
DELEGATIONS_OF_ATTEMPT_MAX: Final = 20
# What one run that is handed on may consist of: a chain with a few reviews.
DELEGATED_PHASES_MAX: Final = 8
DELEGATED_TASKS_MAX: Final = 16
# It stands in the asker's entry and in the owner's, each beside statement and names.
DELEGATED_SPEC_BYTES_MAX: Final = 48 * 1024
# A day: a machine that sleeps over a night takes it in the morning, and what is older is no help.
DELEGATION_LIFE_MS: Final = 24 * 3_600_000
# So long an agent waits for a person's word where nobody says how long, and at most: a day, as a
# person who sleeps answers in the morning. An attempt asks a few things at once, not a list.
APPROVAL_MS: Final = 10 * 60_000
APPROVAL_MS_MAX: Final = 24 * 3_600_000
APPROVALS_OPEN_MAX: Final = 8
# Of those that are over, so many are remembered: whoever answers late hears who was first.
APPROVALS_ENDED_MAX: Final = 256
# What sessions propose to a person: a day, as what is handed on; some at once, as a person reads.
PROPOSAL_LIFE_MS: Final = 24 * 3_600_000
PROPOSALS_OF_SESSION_MAX: Final = 4
PROPOSALS_MAX: Final = 64
# Of those that a person said a word about, the newest: more than anybody answers in a day.
PROPOSALS_ENDED_MAX: Final = 256
# So long a call waits for a person's word; clients give up on one that says nothing for a minute.
PROPOSAL_WAIT_S_MAX: Final = 50.0
DEVICE_DAYS_MAX: Final = 3_650
# The command signs orders that live five minutes; a day is a schedule, not a person's order.
DEVICE_MINUTES_MIN: Final = 5
DEVICE_MINUTES_MAX: Final = 24 * 60
# Orders need so much free disk; while there is none, so much waits, beyond it journals lose lines.
DISK_RESERVE_BYTES: Final = 8 * 1024 * 1024
EVENTS_WAITING_MAX: Final = 10_000
# Enough for a person's mistakes and a test's; a flood of forged orders is counted, not written.
DENIALS_PER_MINUTE_MAX: Final = 60
# How long a start waits for a peer to confirm our own head before it goes on alone.
CONFIRM_MS: Final = 3_000
# How long it waits for further peers to come when those that are here have answered.
COMPANY_MS: Final = 1_000

# One deliverable of a phase without a repository: what git would refuse to carry well, too.
BLOB_BYTES_MAX: Final = 256 * 1024 * 1024
# All deliverables of one attempt, before and after they are placed: a disk is not filled by one.
BLOB_ATTEMPT_BYTES_MAX: Final = 1024 * 1024 * 1024
# Files and folders in one delivered folder. Chosen arbitrarily: a large build output.
BLOB_FOLDER_ENTRIES_MAX: Final = 20_000
# Each level is an open folder while it is read.
BLOB_FOLDER_DEPTH_MAX: Final = 64
# A transfer in which nothing moves for so long is over.
BLOB_SILENCE_MS_MAX: Final = 30_000
# Blobs that came in part and that nobody goes on with now: so many lie here, the newest.
BLOB_PARTS_MAX: Final = 4
# The names of all artefacts of an attempt, so that its entry has room for the rest.
ARTEFACT_NAMES_BYTES_MAX: Final = 12 * 1024
# Entries under which this machine remembers to have got one blob.
BLOB_CLAIMS_MAX: Final = 256

# What `muster new` looks at of a project: names of files, those that it reads, and how much of one.
# More of them say nothing new about how a project is tested.
PROJECT_FILES_MAX: Final = 20_000
PROJECT_READ_MAX: Final = 200
PROJECT_FILE_BYTES_MAX: Final = 256 * 1024

# --- door -------------------------------------------------------------------------------
# Where a port for the door is looked for: below what systems give to outgoing connections, so that
# none of those has it when the daemon starts again.
DOOR_PORTS: Final = range(21_000, 29_000)
# A door that nobody used for so long ends; the next knock starts another in half a second.
DOOR_IDLE_S: Final = 10 * 60.0
# Whoever connects says what it wants within this, headers and body each.
DOOR_REQUEST_S_MAX: Final = 10.0
# A call fits into a frame of 256 KiB; escapes and the envelope of a protocol are what is beyond it.
DOOR_BODY_BYTES_MAX: Final = 1024 * 1024
DOOR_HEADERS_BYTES_MAX: Final = 32 * 1024
# A person's agents, each with two or three; beyond it the oldest that asks nothing goes.
DOOR_VISITORS_MAX: Final = 128
# Each is a connection to the daemon, which takes 256 of all programs together.
DOOR_CALLS_MAX: Final = 96
# Connections of agents that speak the older protocol, and streams of news in the newer one.
DOOR_SESSIONS_MAX: Final = 256
# Resources that one of them follows.
DOOR_FOLLOWED_MAX: Final = 256

# --- incidents -----------------------------------------------------------------------------
# What opens again so soon is the same trouble: a link that flaps, a disk at its limit.
FLAP_MS: Final = 10 * 60_000
# So often within that time is worth a word more: it does not mend itself.
FLAPS_TOLD: Final = 3
# A person who looks at something by then has mended it, or says so again.
ACKNOWLEDGED_MS_MAX: Final = 30 * 24 * 3_600_000
# What nobody wants to hear of for longer should not be an incident.
SILENCE_MS_MAX: Final = 30 * 24 * 3_600_000
# Chosen arbitrarily; three are in use.
NOTIFY_LEVELS_MAX: Final = 9
# A pager that is dead is missed after this; the next one has sent within a step and an answer more.
PAGER_APART_MS: Final = 60_000
# Chosen arbitrarily: who names more means everybody.
PAGERS_MAX: Final = 8
# What a service that does not answer costs; two machines' worth of it fits in PAGER_APART_MS.
NOTIFY_S_MAX: Final = 20
NOTIFY_SERVICES_MAX: Final = 16
# What failed is tried again after so long, doubled each time up to the longest.
NOTIFY_AGAIN_MS_MIN: Final = 60_000
NOTIFY_AGAIN_MS_MAX: Final = 30 * 60_000
# More at once become one message: nobody reads thirty.
NOTIFY_APART_MAX: Final = 3
# A line each of so many in such a message; the rest is counted.
NOTIFY_LINES_MAX: Final = 10
# A phone that rings more often is put away.
NOTIFY_PER_HOUR_MAX: Final = 60
# Of these for what one machine tells: who tells without end leaves room for the others.
NOTIFY_PER_HOUR_OF_MACHINE_MAX: Final = 20
# What had no room is one message by then.
NOTIFY_REST_MS: Final = 10 * 60_000
# Of one machine, the newest: nobody's list of alarms is longer and still read.
NOTIFY_OF_MACHINE_MAX: Final = 50
# What happened before a pager began is told as long as it is news.
NOTIFY_NEWS_MS: Final = 3_600_000
HEARTBEAT_S: Final = 300.0
# --- schedules --------------------------------------------------------------------------
# Slots that are looked at, and counted, at once: a line of cron costs up to 0.4 ms for each, and no
# step takes longer than 50 ms.
SLOTS_MAX: Final = 128
# How many of them are caught up at most (`catch_up: all`).
CATCH_UP_MAX: Final = 100
# A stand-in asks so much later than the one before it: contention is rare, and nobody has to know
# who is there.
SLOT_HANDOVER_MS: Final = 2 * 60_000
SLOT_HANDOVER_MS_MIN: Final = 1_000
# As late as a slot is taken where its schedule says nothing.
SLOT_LATE_MS: Final = 3_600_000
SLOT_LATE_MS_MAX: Final = 7 * 24 * 3_600_000
# Whose clock is further from its peers' than this asks for no slot, and no slot is taken so early.
SLOT_AHEAD_MS_MAX: Final = 5 * 60_000
# How soon a register that gave no answer is asked again, at first and at last.
REGISTER_AGAIN_MS: Final = 1_000
REGISTER_AGAIN_MS_MAX: Final = 30_000
# Chosen arbitrarily; the names and texts of all of them are read at each start.
SCHEDULES_MAX: Final = 1_000
KEEPERS_MAX: Final = 16
EVERY_MS_MIN: Final = 60_000
# So often incidents run one schedule within this time, and messages and memories: a run that makes
# the next of them itself ends there.
INCIDENT_FIRES_MAX: Final = 3
SAYING_FIRES_MAX: Final = 12
TRIGGER_FIRES_MS: Final = 3_600_000
REGISTER_BYTES_MAX: Final = 1024
