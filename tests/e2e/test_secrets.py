"""Twenty canary secrets on a machine of a fleet whose work does its best to let them out."""

import base64
import hashlib
import json
import os
import re
import resource
import sys

import pytest

from muster.errors import Refused
from muster.node.host.secret_store import SecretStore
from muster.task.secret import Grant
from tests.e2e.agents import begin, lines, muster, settled, tasks
from tests.e2e.fleet import Fleet, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

COUNT = 20


# Ten that one phase is granted, ten that nobody is; some of several lines, with what programs quote.
def canary(number):
    """Every third has two lines, and what programs write in another way."""
    first = f"canary-{number:02}-{os.urandom(12).hex()}"
    second = f"and-a-second-line-{os.urandom(8).hex()}"
    return f"{first} 'q\" <&> \\ /+=\n{second}\n" if number % 3 == 0 else first


CANARIES = {f"CANARY_{number}": canary(number) for number in range(COUNT)}
GRANTED = [name for number, name in enumerate(CANARIES) if number % 2 == 0]
LEAKS = """\
muster: 1
name: leaks
phases:
  take:
    agent: shell
    secrets: [{names}]
    do: |
      for each in {spaced}; do
        v=$(printenv $each)
        echo "plain $v"; echo "quoted: '$v'" >&2
        printf %s "$v" | base64 -w0; echo; printf %s "$v" | base64
        {python} -c 'import os,sys,json,urllib.parse as u; v=os.environ[sys.argv[1]]; print(json.dumps(v), u.quote(v), repr(v))' $each
        printf '%s' "$v" | head -c 9; sleep 0.01; printf '%s\\n' "$v" | tail -c +10
      done
      ulimit -c
      {python} -c 'import os; open("names.txt", "w").write(" ".join(sorted(os.environ)))'
      printf '%s' "$(printenv {first})" | head -1
    deliver: names.txt
    check: |
      test -z "$(printenv {first})" && test -s names.txt
  named:
    agent: shell
    secrets: {first}
    do: |
      touch "$(printenv {first}).txt"; echo done
    check: 'true'
  wrong:
    agent: shell
    secrets: {first}
    retries: 0
    do: |
      echo "it failed with $(printenv {first})" >&2; exit 3
    check: 'true'
  after:
    after: take
    agent: shell
    do: |
      env | cut -d= -f1 | sort | tr '\\n' ' '; echo; printf 'from before: %s\\n' "$MUSTER_TAKE_OUTPUT"
    check: 'true'
""".format(
    names=", ".join(GRANTED), spaced=" ".join(GRANTED), first=GRANTED[0], python=sys.executable
)  # fmt: skip


LOOK = """\
muster: 1
name: leaks
phases:
  look:
    agent: shell
    secrets: {name}
    retries: 0
    do: printenv {name} | sha256sum
    check: 'true'
"""


def spellings(value):
    """What would be a leak: the value, each of its longer parts, and how programs write it."""
    parts = {value.strip(), *(line for line in value.split("\n") if len(line) > 12)}
    found = {part.encode() for part in parts}
    found |= {base64.b64encode(part.encode()).rstrip(b"=")[:-2] for part in parts}
    return found | {json.dumps(value)[1:-1].encode()}


def leaks(path, own):
    """The names of the canaries in a file."""
    try:
        raw = path.read_bytes()
    except OSError:
        return set()
    values = {name: value for name, value in CANARIES.items() if path != own / name}
    return {name for name, value in values.items() if any(s in raw for s in spellings(value))}


def granted(fleet):
    """What the hub knows of studio's grants."""
    tools = {m["name"]: m["facts"]["tools"] for m in fleet.hub.ask("machines")}
    assert not [each for each in tools["hub"] if each.startswith("secret:")]
    return [each for each in tools["studio"] if each.startswith("secret:")]


def journal(fleet, run, phase):
    """What the journal of a phase's task has, as the operator reads it on another machine."""
    return lines(muster(fleet, fleet.hub, "logs", tasks(fleet, run)[phase]["task"], "--json"))


@pytest.fixture(scope="module")
def fleet():
    with Fleet(("hub", "studio")) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        # Wherever the tests run, a program that dies would leave a core dump.
        before = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
        made.start()
        resource.setrlimit(resource.RLIMIT_CORE, before)
        yield made


@pytest.fixture(scope="module")
def ran(fleet):
    """The canaries on studio, the run, and every argument list that was seen meanwhile."""
    studio, seen = fleet["studio"], set()
    store, all_phases = SecretStore(studio.home.path), Grant("shell", "leaks", "*")
    for name, value in list(CANARIES.items())[1:]:
        store.put(name, value, 1, "file")
        if name in GRANTED:
            store.grant(name, all_phases)
    # The last one as a person does it.
    name = GRANTED[0]
    words = ("--agent", "shell", "--spec", "leaks", "--phase", "*")
    for typed in (("set", name, "--in", "file"), ("grant", name, *words)):
        said = muster(fleet, studio, "secret", *typed, stdin=CANARIES[name])
        assert said.code == 0, said
        assert CANARIES[name].split("\n")[0] not in said.out + said.err
    until(lambda: len(granted(fleet)) == len(GRANTED), lambda: str(granted(fleet)))
    run = begin(fleet, LEAKS, "leaks", "")

    def over():
        seen.update(fleet.processes().values())
        return fleet.hub.ask("runs", {"run": run})["state"] != "open"

    until(over, "the run ends", within_s=120)
    return run, seen


@proves("secret.one-attempt", "secret.goes-where-granted")
def test_the_work_goes_to_the_machine_that_granted_it_and_has_what_it_was_granted(fleet, ran):
    run, _ = ran
    found = tasks(fleet, run)
    assert {n: t["machine"] for n, t in found.items() if n != "after"} == dict.fromkeys(
        ("take", "named", "wrong"), "studio"
    )
    states = {name: each["state"] for name, each in found.items()}
    assert (states["take"], states["wrong"], states["after"]) == ("done", "failed", "done"), found
    # What the attempt itself saw of its environment.
    view = json.dumps(fleet.hub.ask("runs", {"run": run}))
    assert not [n for n, v in CANARIES.items() if v.strip()[:30] in view]


@proves("secret.told-by-name", "secret.masked")
def test_the_journal_says_which_were_used_by_name_and_every_spelling_is_a_name_there(fleet, ran):
    run, _ = ran
    told = journal(fleet, run, "take")
    (used,) = [each for each in told if each["kind"] == "agent.secrets"]
    assert (used["names"], used["phase"]) == (sorted(GRANTED), "take")
    text = json.dumps(told)
    assert all(f"[{name}]" in text for name in GRANTED)
    assert not [n for n, v in CANARIES.items() if v.strip().split("\n")[0] in text]
    said = "".join(each.get("text", "") for each in told if each["kind"] == "agent.output")
    # What a program writes to its two outputs may come in another order.
    assert re.search(r"\n0(\D|$)", said), "no core dump is written"
    process = fleet["studio"].process
    with open(f"/proc/{process.pid}/limits") as limits:
        (core,) = (line.split() for line in limits if line.startswith("Max core file size"))
    assert core[4] == "0"
    after = journal(fleet, run, "after")
    assert not [each for each in after if each["kind"] == "agent.secrets"]
    said = "".join(each.get("text", "") for each in after if each["kind"] == "agent.output")
    assert "MUSTER_TASK" in said
    assert "CANARY_" not in said.partition("from before")[0], "a phase that names none has none"


@proves("secret.nowhere-else")
def test_twenty_canaries_are_in_no_file_of_any_home_but_their_own_and_in_no_argument_list(
    fleet, ran
):
    _, seen = ran
    assert len(seen) > 5
    assert not [line for line in seen if any(v.strip()[:30] in line for v in CANARIES.values())]
    own = fleet["studio"].home.path / "secrets"
    assert sorted(p.name for p in own.iterdir()) == sorted([*CANARIES, "index.json"])
    found = {
        str(path): names
        for path in fleet.root.rglob("*")
        if path.is_file() and (names := leaks(path, own))
    }
    assert found == {}
    # What would be found: the search itself is tried on a file that has one.
    decoy = fleet.root / "decoy"
    decoy.write_text(f"x{CANARIES['CANARY_3']}x")
    assert leaks(decoy, own) == {"CANARY_3"}
    decoy.unlink()


@proves("secret.taken-back", "secret.set-anew")
def test_a_daemon_that_runs_sees_a_new_value_and_a_grant_that_is_gone_without_a_restart(fleet, ran):
    studio, name = fleet["studio"], GRANTED[0]
    spec = LOOK.format(name=name)
    fresh = f"canary-anew-{os.urandom(12).hex()}"
    assert muster(fleet, studio, "secret", "set", name, stdin=fresh).code == 0
    run = begin(fleet, spec, "leaks", "")
    view = settled(fleet, run)
    assert view["state"] == "done", view
    seen = hashlib.sha256(f"{fresh}\n".encode()).hexdigest()
    assert seen in json.dumps(journal(fleet, run, "look"))
    assert muster(fleet, studio, "secret", "revoke", name).code == 0
    gone = f"secret:{name}/shell/leaks/*"
    until(lambda: gone not in granted(fleet), "the fleet heard that the grant is gone")
    with pytest.raises(Refused, match=f"is not granted the secret {name} there for leaks/look"):
        begin(fleet, spec, "leaks", "")
    assert SecretStore(studio.home.path).known()[name].grants == ()
