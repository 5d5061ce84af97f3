"""Places where all machines of a fleet leave parcels for each other, and the servers that keep them;
and an sshd that is the one way in.

    place = PLACES["cloud"](fleet, "hub")     # before the fleet is started
    place.kill()                              # and `start().ready()` again

Each writes its `[channel.<name>]` into the configuration of every machine.
"""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from muster.channel.base import PostOptions
from muster.node.host.config import config_text
from tests.e2e.fleet import until
from tests.e2e.net import servers
from tests.e2e.net.fleet import NetFleet

CERTIFIED_S: Final = 90.0


def use(fleet: NetFleet, channel: str, options: PostOptions) -> None:
    """Have every machine use this place, besides what it uses."""
    for machine in fleet.machines.values():
        config = machine.home.config()
        channels = {**config.channel, channel: options}
        machine.home.put("config.toml", config_text(replace(config, channel=channels)))


def nats(fleet: NetFleet, host: str) -> servers.Server:
    """The mailboxes of a NATS server."""
    from muster.channel import nats

    server = servers.Nats(fleet.net, host, fleet.root / "nats").ready()
    use(fleet, "nats", nats.Options(place=server.url))
    return server


def git(fleet: NetFleet, host: str) -> servers.Server:
    """A repository, by the sshd of its host."""
    from muster.channel import git

    server = servers.Sshd(fleet.net, host, fleet.root / "sshd").ready()
    place = fleet.root / "shared.git"
    fleet.net.exec(host, ["git", "init", "-q", "--bare", str(place)])
    # What the daemons' git calls ssh knows the key and the host.
    ssh = fleet.root / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {shlex.join(server.command[1:])} "$@"\n')
    ssh.chmod(0o755)
    use(fleet, "git", git.Options(place=f"ssh://root@{server.address}{place}", deadline_s=1))
    return server


def cloud(fleet: NetFleet, host: str) -> servers.Server:
    """A bucket of an object store."""
    from muster.channel import cloud

    folder = fleet.root / "s3"
    server = servers.ObjectStore(fleet.net, host, folder, "rclone")
    (folder / "data" / "shared").mkdir()
    server.ready()
    keys = f"AWS_ACCESS_KEY_ID={server.key}\nAWS_SECRET_ACCESS_KEY={server.secret}\n"
    for machine in fleet.machines.values():
        machine.home.put(cloud.KEYS, keys.encode())
    use(fleet, "cloud", cloud.Options(place=f"{server.url}/shared", deadline_s=1))
    return server


def sftp(fleet: NetFleet, host: str) -> servers.Server:
    """A folder of a host, by its sshd: the place of `drop`, elsewhere."""
    from muster.channel import drop

    # Beside the one that keeps a repository there.
    server = servers.Sshd(fleet.net, host, fleet.root / "sftp", port=2222).ready()
    place = fleet.root / "far"
    place.mkdir()
    address = f"[{server.address}]:{server.port}"
    host_key = (fleet.root / "sftp" / "host_key.pub").read_text()
    server.known.write_text(f"{address} {host_key}")
    options = drop.Options(
        place=f"sftp://root@{server.address}:{server.port}{place}",
        key=str(server.key), known_hosts=str(server.known), deadline_s=1,
    )  # fmt: skip
    use(fleet, "drop", options)
    return server


def door(fleet: NetFleet, host: str, dialer: str) -> servers.Sshd:
    """The sshd of a host, which one machine of ours dials to reach the other: see `let_in`."""
    from muster.channel import ssh

    folder = fleet.root / "door"
    server = servers.Sshd(fleet.net, host, folder).ready()
    fleet[host].env["HOME"] = str(folder)
    far = fleet[dialer].home
    config = far.config()
    options = ssh.Options(peers={host: f"root@{server.address}"})
    far.put("config.toml", config_text(replace(config, channel={**config.channel, "ssh": options})))
    return server


def let_in(fleet: NetFleet, server: servers.Sshd, dialer: str) -> None:
    """Have that sshd let the fleet in, once the fleet is up and there are certificates."""
    for name in (server.host, dialer):
        kept = Path(fleet[name].home.path) / "ssh" / "certificates.json"
        until(kept.exists, f"{name} has its certificates", within_s=CERTIFIED_S)
    fleet[server.host].ask("ssh", {"action": "trust", "file": str(server.keys)})


class Shared(NamedTuple):
    """A folder that all see."""

    place: Path
    elsewhere: Path

    def take_away(self) -> None:
        """As a stick is pulled."""
        self.place.rename(self.elsewhere)

    def put_back(self) -> None:
        """It is there again, with what lay in it."""
        self.elsewhere.rename(self.place)


def drop(fleet: NetFleet) -> Shared:
    """A folder of the computer that runs the test."""
    from muster.channel import drop

    shared = Shared(fleet.root / "shared", fleet.root / "gone")
    shared.place.mkdir()
    use(fleet, "drop", drop.Options(place=str(shared.place), deadline_s=1))
    return shared


PLACES: Final[dict[str, Callable[[NetFleet, str], servers.Server]]] = {
    "nats": nats, "git": git, "cloud": cloud, "sftp": sftp,
}  # fmt: skip
