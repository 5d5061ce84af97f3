"""Orders of one operator about machines that are gone."""

from typing import Any

from muster.fleet.statement import sign_statement
from muster.log.keys import Signer
from muster.log.stream import FleetId
from muster.task.adoption import TAKEOVER, takeover_args
from muster.task.standin import STANDIN, FleetStandin, standin_args

FLEET_ID = FleetId("f" * 64)
OPERATOR = Signer(b"o" * 32)
NOW_MS = 1_790_000_000_000
END_MS = NOW_MS + 60_000


def signed(verb: str, object: str, target: str, args: Any, **changes: Any) -> str:
    known: dict[str, Any] = {
        "fleet": FLEET_ID, "verb": verb, "object": object, "target": target, "args": args,
        "nonce": bytes(16), "issued_ms": NOW_MS, "until_ms": END_MS,
    }  # fmt: skip
    return sign_statement(OPERATOR, **{**known, **changes}).decode()


def takeover(of: str, target: str, **changes: Any) -> str:
    return signed(TAKEOVER, of, target, takeover_args(of), **changes)


def standin(
    of: str, by: str, target: str, after_ms: int = 30_000, replaces: str = "",
    others: tuple[str, ...] = (), **changes: Any,
) -> FleetStandin:  # fmt: skip
    text = signed(STANDIN, of, target, standin_args(of, by, after_ms, replaces, others), **changes)
    return FleetStandin(of, text, by, after_ms, replaces, others)
