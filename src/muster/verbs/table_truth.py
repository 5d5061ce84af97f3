"""Verbs about what is true, and what is kept; the rules are those of `node/verb.py`."""

from typing import Final

from muster.verbs.verb import Verb, opt, pos

TRUTH: Final = (
    Verb(
        "forks", "streams whose own key wrote two histories, and what was decided", "local",
        "step", "muster.verbs.fork:forks",
    ),
    Verb(
        "close", "close a fork: you looked at it, its stream stays where it was cut", "local",
        "client", "muster.verbs.fork:close",
        (
            pos("fork", "the fork's id (its beginning is enough)"),
            pos("note", "what you found, for the log", kind="words", required=False),
        ),
    ),
    Verb(
        "fork.close", "an operator's decision about a fork", "order", "step",
        "muster.verbs.fork:settle",
        (pos("fork", "the fork's whole id"), opt("note", "what was found")),
        hidden=True, object="fork", operators_only=True,
    ),
    Verb(
        "repo", "add or list the fleet's repositories", "order", "async", "muster.verbs.repo:repo",
        (
            pos("action", "add or list", choices=("add", "list")),
            pos("name", "its name in the fleet", required=False, actions=("add",),
                needed=("add",)),
            pos("path", "a folder or an address to take it from", required=False, kind="place",
                actions=("add",), needed=("add",)),
        ),
        object="name", target="hub",
    ),
    Verb(
        "repo.list", "the fleet's repositories, and where they are kept", "local", "async",
        "muster.verbs.repo:listing", hidden=True,
    ),
    Verb(
        "git.connect", "a stream for git", "local", "stream", "muster.verbs.repo:connect",
        hidden=True,
    ),
    Verb(
        "git.serve", "a repository of ours, to a machine", "peer", "stream",
        "muster.verbs.repo:serve", hidden=True,
    ),
    Verb(
        "git.again", "the commit of a settled attempt, once more", "peer", "async",
        "muster.verbs.repo:again", hidden=True,
    ),
    Verb(
        "git.stands", "whether a settled branch is where its task says", "local", "async",
        "muster.verbs.repo:stands",
        (pos("repo", "repository"), pos("branch", "branch"), pos("commit", "commit")), hidden=True,
    ),
    Verb(
        "git.may-push", "may this machine push this?", "local", "step", "muster.verbs.repo:ask",
        hidden=True,
    ),
    Verb(
        "schema", "print the JSON Schema of specs, for editors", "local", "client",
        "muster.verbs.plan:schema",
    ),
)  # fmt: skip
