"""What is generated of the verbs is what they declare now."""

import ast
import subprocess
import sys
from pathlib import Path

from tools import docs, table

from muster import verbs
from muster.fleet.device import NEVER
from muster.fleet.grant import ANYTHING, GIVE, TAKE
from muster.verbs.declaration import declared
from muster.verbs.device import DAILY
from muster.verbs.grant import check_right
from muster.verbs.table import VERBS as TABLE
from tests.promise import proves

VERBS = Path(verbs.__file__).parent


@proves("cli.table-is-generated")
def test_the_table_is_what_the_modules_of_verbs_declare():
    assert table.PATH.read_text() == table.text(table.rows()), "make table"


@proves("scaffold.templates")
def test_the_guide_says_of_templates_what_their_files_say():
    assert (docs.DOCS / "guide" / "templates.md").read_text() == docs.templates(), "make docs"


@proves("cli.table-is-generated")
def test_the_page_of_verbs_is_what_they_declare_and_programs_get_a_schema_of_each():
    assert (docs.DOCS / "verbs.md").read_text() == docs.page(), "make docs"
    schema = docs.openapi()
    for verb in table.rows():
        if verb.name in declared and verb.runs != "client":
            post = schema["paths"][f"/{verb.name}"]["post"]
            assert post["requestBody"]["content"]
            assert post["responses"]["200"]["content"]


@proves("cli.table-is-generated")
def test_every_module_that_declares_a_verb_is_a_noun_of_the_table():
    declaring = {
        path.stem
        for path in VERBS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for each in node.decorator_list
        if ast.unparse(each).startswith("verb(")
    }
    assert declaring == set(verbs.NOUNS)


@proves("cli.table-is-generated")
def test_no_module_of_verbs_loads_a_core_or_a_daemon():
    """The table is made of them, and the command reads some of them: they cost what they hold."""
    script = (
        "import importlib, sys\nfrom muster.verbs import NOUNS\n"
        "for noun in NOUNS: importlib.import_module(f'muster.verbs.{noun}')\n"
        "print(sorted({'muster.node.core', 'muster.node.daemon'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# What an entry of these kinds lets somebody order who could not.
POWERS = {"GrantGive", "DeviceOpen", "OperatorRecorded", "MachineRecorded"}


def written_by(module: str, name: str, seen: set[tuple[str, str]]) -> set[str]:
    """The kinds that a function of a module of verbs makes, itself or by others of them."""
    path = VERBS / f"{module}.py"
    if (module, name) in seen or not path.exists():
        return set()
    seen.add((module, name))
    tree = ast.parse(path.read_text())
    where = {each.name: module for each in tree.body if hasattr(each, "name")}
    for each in tree.body:
        if isinstance(each, ast.ImportFrom) and (each.module or "").startswith("muster.verbs."):
            where |= {found.name: each.module.rpartition(".")[2] for found in each.names}
    found: set[str] = set()
    own = [each for each in tree.body if getattr(each, "name", "") == name]
    for node in (node for each in own for node in ast.walk(each)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "kinds":
            found.add(node.attr)
        elif isinstance(node, ast.Name) and node.id in where:
            found |= written_by(where[node.id], node.id, seen)
    return found


@proves("fleet.device-chain")
def test_no_device_may_have_a_verb_that_lets_somebody_order_more():
    able = {
        verb.name
        for verb in TABLE.values()
        if verb.auth in ("order", "agent") and POWERS & written_by(
            *verb.handler.removeprefix("muster.verbs.").split(":"), set()
        )
    }  # fmt: skip
    # It may make the holder of the authority a hub, and a device invites no hub.
    assert able - {"invite"} == NEVER & TABLE.keys()
    assert NEVER - TABLE.keys() == {ANYTHING, GIVE, TAKE}


@proves("fleet.device-rights")
def test_a_device_may_unasked_what_it_could_be_given_and_an_agent_what_a_capability_is_for():
    for name in DAILY:
        check_right(name, ANYTHING)
    assert not NEVER & set(DAILY)
    assert {"run", "send", "task"} <= set(DAILY)
    given = {verb.name: verb.auth for verb in TABLE.values() if verb.agents}
    ordered = dict.fromkeys(("send", "reply", "ack", "remember", "refute"), "agent")
    # What a person of this machine may read, an agent reads too, and that is written down.
    # What it hands on, it does within what a person signed, and that is looked at there.
    local = ("memory", "memory.standing", "recall", "digest", "delegate", "withdraw")
    assert given == ordered | dict.fromkeys(local, "local")
