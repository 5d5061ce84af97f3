"""What a question for a repository must say before git is started for it."""

import pytest
from tests.git.repositories import wait
from tests.promise import proves

from muster.errors import Malformed
from muster.git import serve as remote
from muster.node.call.arguments import read
from muster.verbs.table import VERBS


@proves("git.hostile-input")
@pytest.mark.parametrize(
    "question",
    [
        {},
        {"machine": "hub", "repo": "main", "service": "git-shell"},
        {"machine": "hub", "repo": 1, "service": "git-upload-pack"},
        {"machine": ["hub"], "repo": "main", "service": "git-upload-pack"},
        {"machine": "hub", "repo": "main", "service": ["git-upload-pack"]},
    ],
)
def test_a_question_of_another_shape_is_refused(question):
    for name in ("git.connect", "git.serve"):
        with pytest.raises(Malformed):
            read(VERBS[name], VERBS[name].load(), question, {})


@proves("git.hostile-input")
def test_nothing_is_served_to_an_unproven_machine(tmp_path):
    with pytest.raises(Malformed):
        wait(remote.serve(tmp_path, "git-receive-pack", peer="", sock="x"))
