"""What doctor says of the fleet's own mesh, where somebody made one here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from muster.node.host import program, service
from muster.node.host.home import Home
from muster.verbs import mesh
from muster.verbs.checks import Check
from muster.verbs.declaration import Context

_NAME: Final = "mesh"
_RIGHT: Final = "CAP_NET_ADMIN"
# A drop-in is a few lines, and there are few.
_DROP_INS_MAX: Final = 50
_DROP_IN_BYTES_MAX: Final = 64 * 1024


def of_mesh(context: Context) -> Iterator[Check]:
    """Whether it is there, whether anybody is heard in it, and whether it follows the fleet."""
    found = mesh.looked_at(context)
    if not (found.up or found.port):
        return
    if not found.up:
        text = "its interface is gone, as after a start of the computer: nobody comes by it"
        yield Check(_NAME, "wrong", text, "muster mesh up")
        return
    yield _heard(found)
    if not found.follows:
        yield _right(context.home)


def _heard(found: mesh.Mesh) -> Check:
    states = [peer.state for peer in found.peers]
    if not states:
        return Check(_NAME, "ok", f"{found.interface} is there, and no other machine could be")
    if "unknown" in states:
        if not program.there("wg"):
            mend = "apt install wireguard-tools"
            return Check(_NAME, "note", "`wg` is not installed: nobody can look who is heard", mend)
        return Check(_NAME, "ok", f"{found.interface} is there; only root can tell who is heard")
    if up := states.count("up"):
        lacks = states.count("missing")
        text = f"{up} of {len(states)} machines were heard within three minutes"
        if lacks:
            text += f"; {lacks} that joined are not let in yet"
            return Check(_NAME, "note", text, "muster mesh up")
        return Check(_NAME, "ok", text)
    text = f"none of {len(states)} machines was heard within three minutes"
    where = f"UDP port {found.port} has to come through here or there; `muster mesh status`"
    return Check(_NAME, "note", text, where)


def _right(home: Home) -> Check:
    """What keeps the daemon from following the fleet; what it was given and does not have."""
    text = "the daemon may not change it: who joins or is revoked counts there with `mesh up` alone"
    kept = service.installed(home)
    if kept is None or kept.scope != "system":
        # The systemd of a person has no such right, and a drop-in there gives none.
        if kept is not None and _gives_right(kept.file):
            text += f"; the drop-in of {kept.file.name} gives a right that a person's systemd lacks"
            return Check(_NAME, "note", text, "muster service install --system")
        return Check(_NAME, "note", text, "muster mesh up")
    unit = kept.file.name
    if _gives_right(kept.file):
        return Check(_NAME, "note", f"{text}, and was started before the drop-in of {unit} gave it",
                     f"sudo systemctl restart {unit}")  # fmt: skip
    mend = f"sudo systemctl edit {unit}, with [Service] and AmbientCapabilities={_RIGHT}"
    return Check(_NAME, "note", text, mend)


def _gives_right(unit: Path) -> bool:
    """Whether a drop-in of this unit names the right."""
    folder = unit.with_name(f"{unit.name}.d")
    found = sorted(folder.glob("*.conf"))[:_DROP_INS_MAX] if folder.is_dir() else []
    return any(_names_right(each) for each in found)


def _names_right(file: Path) -> bool:
    with open(file, "rb") as opened:
        lines = opened.read(_DROP_IN_BYTES_MAX).decode(errors="replace").splitlines()
    return any(line.strip().startswith("AmbientCapabilities=") and _RIGHT in line for line in lines)
