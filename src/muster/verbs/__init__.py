"""Every action a person, an agent or a machine can ask for: one file for each noun."""

from typing import Final

GROUPS: Final = ("The fleet", "Work", "Messages", "Memory", "What is true")
"""The parts of the help page; a verb without one is for machines and programs."""

EVERY_DAY: Final = {
    "Begin": ("init", "invite", "join", "doctor"),
    "Give work": ("run", "ask", "runs", "watch", "why", "land"),
    "Answer and talk": ("questions", "send", "inbox"),
    "See how things are": ("status", "machines", "incidents"),
}
"""What a person does every day: the help page without `--all`, which fits on one screen."""

NOUNS: Final = (
    "setup",
    "enrolment",
    "role",
    "revoke",
    "grant",
    "operator",
    "device",
    "daemon",
    "service",
    "status",
    "machine",
    "leave",
    "agent",
    "link",
    "doctor",
    "target",
    "run",
    "watch",
    "rerun",
    "awaited",
    "plan",
    "new",
    "template",
    "project",
    "spec",
    "task",
    "delegate",
    "results",
    "checkout",
    "land",
    "control",
    "question",
    "journal",
    "fetch",
    "blob",
    "submission",
    "beat",
    "message",
    "inbox",
    "thread",
    "session",
    "hook",
    "memory",
    "recall",
    "digest",
    "forget",
    "audit",
    "tail",
    "changes",
    "incident",
    "doubt",
    "repo",
    "git",
    "door",
    "completion",
)
"""The modules that declare verbs, in the order of the help page."""
