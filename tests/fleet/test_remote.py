"""What a machine writes down of what it did for a person elsewhere."""

from typing import Any

import pytest
from tests.fleet.world import STUDIO, stream
from tests.promise import proves

from muster.fleet import remote
from muster.fleet.remote import ExecBegin, ExecEnd, FileCopied, Went
from muster.limits import ARGUMENT_WORDS_MAX, INT_ABS_MAX
from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import compose
from muster.log.fold import Skip, body_as
from muster.log.kind import bodies_of, kind_of
from muster.log.stream import JOURNAL

HASH = "5" * 64
WENT = Went(HASH, 7)


def begin(**changes: Any) -> Any:
    return ExecBegin(**{"program": "make", "sha256": HASH, "words": 2, **changes})


def end(**changes: Any) -> Any:
    return ExecEnd(**{"code": 0, "errors": WENT, "input": WENT, "output": WENT, **changes})


def copied(**changes: Any) -> Any:
    return FileCopied(**{"path": "a/b", "sha256": HASH, "size": 7, "way": "read", **changes})


def read(body: Any, raw: bytes | None = None) -> Any:
    """As whoever looks into the journal later reads it."""
    raw = canon.encode(body) if raw is None else raw
    name = stream(STUDIO, JOURNAL)
    entry = compose(name, 0, Stamp(0, 0), kind_of(type(body)), "muster", [], raw, bytes(16))
    return body_as(entry, type(body))


@pytest.mark.parametrize(
    "body",
    [
        begin(),
        begin(program="", terminal=True, words=ARGUMENT_WORDS_MAX),
        begin(program='ä "\n\x00' + "x" * 194),
        end(code=255, why="the person left", output=Went(HASH, INT_ABS_MAX)),
        copied(way="written", size=0, path="x" * 1000, why="it was cut"),
    ],
)
@proves("remote.is-written-down")
def test_what_was_done_is_read_as_it_was_written(body: Any):
    assert read(body) == body


@pytest.mark.parametrize(
    "body",
    [
        begin(words=0),
        begin(words=ARGUMENT_WORDS_MAX + 1),
        begin(program="x" * 201),
        begin(sha256=HASH.upper().replace("5", "A")),
        begin(terminal=1),
        end(code=-9),
        end(code=256),
        end(why="x" * 201),
        end(output=Went(HASH, -1)),
        end(input=Went(HASH[1:], 7)),
        end(errors=None),
        copied(path="x" * 1001),
        copied(way="removed"),
        copied(size=-1),
        copied(sha256=""),
    ],
    ids=str,
)
@proves("remote.is-written-down")
def test_what_nobody_could_have_done_is_not_read(body: Any):
    with pytest.raises(Skip, match="bad-body"):
        read(body)


@proves("remote.is-written-down")
def test_there_is_no_place_for_the_words_of_a_command_or_the_bytes_of_a_file():
    for body in (begin(), end(), copied()):
        said = canon.decode(canon.encode(body), "The body", size_max=4096)
        for field in ("argv", "bytes", "environment", "text"):
            with pytest.raises(Skip, match="bad-body"):
                read(body, canon.encode({**said, field: "secret"}))
    assert set(bodies_of(remote.__name__)) == {"exec.begin", "exec.end", "file.copied"}
