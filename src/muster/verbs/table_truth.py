"""Verbs about what is true, and what is kept; the rules are those of `node/verb.py`."""

from typing import Final

from muster.verbs.verb import Verb, pos

TRUTH: Final = (
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
