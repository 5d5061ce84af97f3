"""A daemon that tells a real web server what happens, with nobody at the keyboard."""

import json

import pytest

from muster.node.host.notify_store import NotifyStore
from tests.cli.test_notify import Hook, web
from tests.e2e.fleet import Fleet, until
from tests.promise import proves

__all__ = ["web"]

pytestmark = pytest.mark.e2e

SECRET = "canary-51ab0c"
FAILS = "muster: 1\nname: fails\nphases:\n  only:\n    agent: shell\n    do: 'false'\n    check: 'true'\n"


@proves("notify.runs-are-told", "notify.heartbeat", "notify.address-hidden")
def test_a_run_that_fails_reaches_a_person_and_the_daemon_shows_that_it_lives(web):
    with Fleet(("hub",)) as fleet:
        home = fleet.hub.home
        NotifyStore(home.path).add("hook", f"json://{web}/{SECRET}", "push", in_keychain=False)
        config = home.path / "config.toml"
        config.write_text(
            f'{config.read_text()}heartbeat.url = "http://{web}/alive"\nsandbox.default = "off"\n'
        )
        fleet.start()
        until(lambda: ("/alive", b"") in Hook.got, "the sign of life comes")
        args = {"base": "", "repo": "", "spec": FAILS, "values": {}}
        fleet.hub.order("run", "fails", args)
        told = until(lambda: [raw for path, raw in Hook.got if SECRET in path], "somebody is told")
        said = json.loads(told[0])
        assert said["title"] == "run fails: failed"
        assert len([path for path, _ in Hook.got if SECRET in path]) == 1
        shown = fleet.hub.log() + "".join(fleet.processes().values())
        assert SECRET not in shown
