"""What people read about templates."""

from typing import Any

from muster.cli.show import listed
from muster.cli.text import Files
from muster.verbs.table import VERBS


def template(value: Any, _files: Files) -> str:
    if isinstance(value, dict):
        # Its header says when to take it, and what happens.
        return str(value["text"]).rstrip("\n")
    more = "`muster template show NAME` shows one, `muster new NAME --template …` takes it"
    return f"{listed(VERBS['template'].columns, value, '')}\n\n{more}"
