"""What a home says of its secrets: names, places and grants; never a value."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from muster.task.secret import Grant, SecretName

# Of one machine; as facts, grants stand among its tools, of which there may be 256.
SECRETS_MAX: Final = 64
GRANTS_MAX: Final = 100

Place = Literal["keychain", "credential", "file"]


class Kept(Struct, frozen=True, forbid_unknown_fields=True):
    """What the index says of one secret."""

    place: Place
    set_ms: int = 0
    grants: tuple[Grant, ...] = ()


class Index(Struct, frozen=True, forbid_unknown_fields=True):
    """`index.json`. `service` is how the keychain calls this home."""

    v: Literal[1] = 1
    service: Annotated[str, Meta(max_length=64)] = ""
    secrets: Annotated[dict[SecretName, Kept], Meta(max_length=SECRETS_MAX)] = {}


def without(found: Mapping[str, Kept], name: str) -> dict[str, Kept]:
    return {each: kept for each, kept in found.items() if each != name}
