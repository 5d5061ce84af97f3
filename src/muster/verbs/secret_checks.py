"""What doctor says of a machine's secrets: files that others can read, and grants that ended."""

from collections.abc import Iterator

from muster.errors import MusterError
from muster.node.host import clock
from muster.node.host.home import Home
from muster.node.host.secret_store import SecretStore
from muster.verbs.checks import Check


def of_secrets(home: Home) -> Iterator[Check]:
    """What is wrong with them, and which grants ended; nothing where there are none."""
    store, now_ms = SecretStore(home.path), clock.read().wall_ms
    faults = list(store.faults())
    for text, mend in faults:
        yield Check("secrets", "wrong", f"{text}: no attempt gets it", mend)
    try:
        known = store.known()
    except MusterError:
        # It is said above, among the faults.
        # Said above.
        return
    for name, kept in known.items():
        for grant in kept.grants:
            if grant.is_over(now_ms):
                words = f"--agent {grant.agent} --spec {grant.spec} --phase {grant.phase}"
                yield Check("secrets", "note", f"the grant of {name} to {grant.attempts} has ended",
                            f"muster secret revoke {name} {words}, or grant it anew")  # fmt: skip
    if known and not faults:
        yield Check("secrets", "ok", f"{len(known)} are kept for attempts that were granted them")
