"""Whether an order to have something done without a sandbox is taken, where it is handed in.

Rule: each machine that is to run it asks the same of the same statement (task/order_proof.py);
here it is asked before anything is written.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from muster.errors import Denied
from muster.fleet.grant import UNENCLOSED
from muster.fleet.statement import Statement
from muster.task.openings import OFF, openings_of
from muster.task.spec import Spec

if TYPE_CHECKING:
    from muster.node.core import Core


def check_run(core: "Core", order: Statement, spec: Spec, kept: Collection[str]) -> None:
    """Raises: Denied where a phase that is to run has no sandbox, and who ordered it may not."""
    for name, phase in spec.phases.items():
        if phase.sandbox == OFF and name not in kept:
            _check(core, order, f"phase {name}")


def check_task(core: "Core", order: Statement, template: Mapping[str, Any]) -> None:
    """As `check_run`, of a task without a run. Raises: Malformed for what cannot be read."""
    if openings_of(template).is_off:
        _check(core, order, "the task")


def _check(core: "Core", order: Statement, what: str) -> None:
    try:
        core.roster.permit(replace(order, verb=UNENCLOSED), core.now.wall_ms)
    except Denied as error:
        raise Denied(f"{what} has sandbox: off, and {error} Or leave sandbox: off out.") from error
