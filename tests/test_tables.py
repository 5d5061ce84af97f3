"""What is generated of the verbs is what they declare now."""

import ast
import subprocess
import sys
from pathlib import Path

from tools import docs, table

from muster import verbs
from muster.verbs.declaration import declared
from tests.promise import proves

VERBS = Path(verbs.__file__).parent


@proves("cli.table-is-generated")
def test_the_table_is_what_the_modules_of_verbs_declare():
    assert table.PATH.read_text() == table.text(table.rows()), "make table"


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
