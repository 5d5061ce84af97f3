"""`muster check` where no daemon runs."""

from pathlib import Path

from tests.cli.world import muster
from tests.promise import proves

GOOD = (
    "muster: 1\nname: hello\nphases:\n  one:\n    agent: shell\n    do: 'true'\n    check: 'true'\n"
)


@proves("cli.check-needs-no-daemon")
def test_a_spec_is_checked_without_a_daemon_and_the_answer_says_what_was_not_asked(
    tmp_path: Path,
) -> None:
    spec = tmp_path / "hello.yaml"
    spec.write_text(GOOD)
    said = muster(tmp_path / "nowhere", "check", str(spec))
    assert said.code == 0
    assert "nothing is wrong with the file" in said.out
    assert "was not compared" in said.err
    assert muster(tmp_path / "nowhere", "check", "--json", str(spec)).value["compared"] is False
    assert not (tmp_path / "nowhere").exists()


@proves("cli.check-needs-no-daemon")
def test_what_is_wrong_with_a_spec_is_said_without_a_daemon(tmp_path: Path) -> None:
    spec = tmp_path / "hello.yaml"
    spec.write_text(GOOD.replace("check:", "after: [two]\n    check:"))
    said = muster(tmp_path / "nowhere", "check", "--alone", str(spec))
    assert said.code == 1
    assert "hello.yaml:7:" in said.out
    assert "two" in said.out
