"""A repository is kept where the newest generation says, and nobody adopts his own."""

from tests.promise import proves
from tests.task.world import BUILD, OWNER, STUDIO, Stream

from muster.task.keeping import KEEPING, KeepingFold, RepoAdopt


@proves("adopt.repositories")
def test_of_several_words_about_a_repository_the_highest_generation_counts():
    stream = Stream(BUILD, folds=(KeepingFold(),))
    first = stream.append(RepoAdopt("main", OWNER, 5))
    stream.append(RepoAdopt("main", STUDIO, 5))
    stream.append(RepoAdopt("main", STUDIO, 4))
    assert stream.rows.get(KEEPING, "main") == (stream.rows.stream, "main", OWNER, 5, first.id)
    assert stream.skipped == ["keeping-older"] * 2
    newer = stream.append(RepoAdopt("main", STUDIO, 6))
    stream.append(RepoAdopt("other", OWNER, 1))
    assert stream.rows.get(KEEPING, "main") == (stream.rows.stream, "main", STUDIO, 6, newer.id)


@proves("adopt.repositories")
def test_nobody_takes_over_a_repository_of_its_own_or_of_an_odd_name():
    stream = Stream(BUILD, folds=(KeepingFold(),))
    stream.append(RepoAdopt("main", BUILD, 5))
    for repo in ("", "../x", "-main", "Main", "a" * 65, "main\\n"):
        raw = b'{"generation":5,"of":"%b","repo":"%b"}' % (OWNER.encode(), repo.encode())
        stream.append_raw("repo.adopt", raw)
    assert stream.skipped == ["its-own", *["bad-body"] * 6]
    assert stream.rows.held == {}
