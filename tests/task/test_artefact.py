"""Artefacts as text: one spelling each, and no path that leads anywhere else."""

import pytest
from tests.promise import proves

from muster.errors import Malformed, Refused
from muster.limits import BLOB_BYTES_MAX
from muster.task.artefact import Artefact, laid_over, named, parse

SHA = "0a" * 32


@proves("task.artefact-text")
@pytest.mark.parametrize(
    ("text", "artefact"),
    [
        (f"blob:{SHA}:12:a/b c.txt", Artefact("a/b c.txt", SHA, 12)),
        (f"blob:{SHA}:0:tool*", Artefact("tool", SHA, 0, "program")),
        (f"blob:{SHA}:9:out/", Artefact("out", SHA, 9, "folder")),
    ],
)
def test_an_artefact_is_written_and_read_in_one_form(text, artefact):
    assert (parse(text), str(artefact)) == (artefact, text)
    assert named("", [text]) == (artefact,)


@proves("task.artefact-text")
def test_with_a_commit_no_artefact_names_a_blob():
    assert named("c" * 40, [f"blob:{SHA}:12:a", "README.md"]) == ()


@proves("task.artefact-text")
@pytest.mark.parametrize(
    "text",
    [
        "README.md", "", f"blob:{SHA}:12:", f"blob:{SHA[1:]}:12:a", f"blob:{SHA.upper()}:12:a",
        f"blob:{SHA}:-1:a", f"blob:{SHA}:01:a", f"blob:{SHA}:{BLOB_BYTES_MAX + 1}:a",
        f"blob:{SHA}:1:../a", f"blob:{SHA}:1:/etc/passwd", f"blob:{SHA}:1:a/../../b",
        f"blob:{SHA}:1:a//b", f"blob:{SHA}:1:.git/hooks/x", f"blob:{SHA}:1:a\nb",
        f"blob:{SHA}:1:~/a", f"blob:{SHA}:1:-rf", f"blob:{SHA}:1:{'a' * 201}", f"blob:{SHA}:1:a*/",
        f"blob:{SHA}:1:a\\b", f"blob:{SHA}:1:.", f"blob:{SHA}:1:/",
    ],
)  # fmt: skip
def test_a_text_that_names_no_place_inside_a_folder_is_refused(text):
    with pytest.raises(Malformed):
        parse(text)


def some(*paths: str) -> list[Artefact]:
    return [Artefact(path, SHA, 1) for path in paths]


def laid(left: list[str], right: list[str], *, above: dict[str, set[str]]) -> list[str]:
    both = {"one": some(*left), "two": some(*right)}
    return [f"{phase}:{each.path}" for phase, each in laid_over(both, above)]


@proves("task.artefacts-do-not-collide")
@pytest.mark.parametrize(
    ("left", "right"), [("a", "a"), ("out", "out/a"), ("out/deep/a", "out"), ("Report", "report")]
)
def test_two_deliverables_that_cannot_lie_in_one_folder_are_refused(left, right):
    with pytest.raises(Refused, match=f"phase one delivers {left} and phase two delivers {right}"):
        laid([left], [right], above={})


@proves("task.artefacts-do-not-collide")
def test_neighbours_in_one_folder_do_not_collide():
    assert len(laid(["out/a", "output"], ["out/b", "out-c"], above={})) == 4


@proves("task.artefacts-do-not-collide")
@pytest.mark.parametrize(
    ("left", "right", "there"),
    [
        (["a", "b"], ["a"], ["one:b", "two:a"]),
        (["out/a", "out/deep/b", "c"], ["out"], ["one:c", "two:out"]),
        (["out"], ["out/a"], ["one:out", "two:out/a"]),
    ],
)
def test_what_a_later_phase_delivers_replaces_what_lay_there(left, right, there):
    assert laid(left, right, above={"two": {"one"}}) == there
