"""What doctor says of the places where this machine leaves and takes parcels."""

from collections.abc import Iterator
from importlib.util import find_spec

from muster.channel import CHANNELS, cloud
from muster.errors import MusterError
from muster.extra import bring
from muster.node.host.home import Home
from muster.verbs.checks import Check
from muster.verbs.declaration import Context


def of_places(home: Home) -> Iterator[Check]:
    """What a configured place lacks here. Raises: Broken where config.toml is of no use."""
    for spec, _ in home.config().posts():
        if spec.name == "drop" and find_spec("watchfiles") is None:
            yield Check(
                spec.name, "note", "watchfiles is not installed: the folder tells of nothing, and "
                "is looked at now and then", bring(spec.extra),
            )  # fmt: skip
        if spec.name == cloud.NAME:
            try:
                cloud.keys_of(home.variables(cloud.KEYS))
            except MusterError as error:
                yield Check(spec.name, "wrong", str(error), "muster doctor")


def of_their_use(context: Context) -> Iterator[Check]:
    """Why a place is not used now, as the daemon found it: once for each place and reason."""
    posts = {spec.name for spec in CHANNELS if spec.shape == "post"}
    seen: dict[tuple[str, str, str], None] = {}
    for row in context.ask("channels", {}):
        if row["channel"] in posts and row["state"] in ("failed", "broken"):
            seen[row["channel"], row["state"], row["reason"]] = None
    for channel, state, reason in seen:
        # What is away may come back: a stick, a share, a server. What is broken does not.
        yield Check(channel, "wrong" if state == "broken" else "note", reason, "muster channels")
