"""Which file a mistake is in, of a spec and of a schedule with its spec."""

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import to_builtins

from muster.cli import parse, peer_run, steps
from muster.errors import MusterError, Refused
from muster.task import check
from muster.task.problem import SpecErrors
from muster.verbs import schedule
from muster.verbs.spec import problems
from tests.node.scheduling import FILE, SPEC
from tests.promise import proves

BAD = SPEC.replace("agent: noop", "agnet: noop")
# Without a place, as the call brings it: it stays as it is.
PLAIN = "the spec nightly is for a push; leave `on` out of it"


class Daemon:
    """What a command asks; the machine that is to own a run finds what is wrong with its spec."""

    json, on, is_agent = False, "", False

    def __init__(self, command: Any = None, plain: str = "") -> None:
        self.command, self.plain = command, plain

    def ask(self, verb: str, args: Any, **_how: Any) -> Any:
        if verb == "check":
            # The fleet is known to the owner alone.
            good = problems(SPEC) if self.command.on != "studio.other" else problems(args["spec"])
            return to_builtins(good)
        assert verb in ("run", "schedule.make")
        if self.plain:
            raise Refused(self.plain)
        try:
            check.admit(args["spec"].encode())
        except SpecErrors as error:
            # As the call brings it: of a kind that the command does not know.
            raise Refused(str(error)) from error


def refused(ask: Any, *args: Any) -> str:
    with pytest.raises(MusterError) as error:
        ask(*args)
    return f"{type(error.value).__name__}: {error.value}"


@proves("cli.a-mistake-names-its-file")
@pytest.mark.parametrize("name", ["nightly.yaml", "-"])
def test_what_the_owner_of_a_run_finds_wrong_is_said_with_the_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nightly.yaml").write_text(BAD)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(BAD.encode())))
    command, said = parse.parse(["run", name]), name.replace("-", "standard input")
    order = steps.Ordered({"spec": command.args["spec"]}, {})
    found = refused(steps.begin, Daemon(command), order)
    assert found.startswith(f'Malformed: {said}: line 5, column 5: phases.only has no key "agnet"')
    assert refused(steps.begin, Daemon(command, PLAIN), order) == f"Refused: {PLAIN}"


@proves("cli.a-mistake-names-its-file")
def test_what_another_fleet_would_find_wrong_is_said_with_its_place(tmp_path):
    file = tmp_path / "nightly.yaml"
    file.write_text(BAD)
    command = parse.parse(["run", str(file), "--on", "studio.other"])
    assert f'{file}:5:5: error: phases.only has no key "agnet"' in refused(
        peer_run.ask, Daemon(command)
    )


@proves("cli.a-mistake-names-its-file")
@pytest.mark.parametrize(
    ("file", "spec", "says"),
    [
        (FILE.replace("when", "whn"), SPEC, "nightly.yaml: line 3, column 1: "),
        (FILE.replace("run: ", "run: at/"), BAD, "at/spec.yaml: line 5, column 5: phases.only"),
        ("a: [", SPEC, "nightly.yaml: line 1, column "),
    ],
    ids=["schedule", "spec", "no YAML"],
)
def test_what_is_wrong_with_a_schedule_names_its_own_file_or_that_of_its_spec(
    tmp_path, file, spec, says
):
    (tmp_path / "at").mkdir()
    for each in (tmp_path, tmp_path / "at"):
        (each / "spec.yaml").write_text(spec)
    (tmp_path / "nightly.yaml").write_text(file)
    found = refused(schedule.schedule, Daemon(), schedule.Action("add", f"{tmp_path}/nightly.yaml"))
    assert found.startswith(f"Malformed: {tmp_path}/{says}")


@proves("cli.a-mistake-names-its-file")
def test_what_has_no_place_in_a_schedule_is_said_as_it_is(tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "nightly.yaml").write_text(FILE)
    ask = schedule.Action("add", f"{tmp_path}/nightly.yaml")
    assert refused(schedule.schedule, Daemon(plain=PLAIN), ask) == f"Refused: {PLAIN}"
