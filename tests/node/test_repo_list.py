"""Which repositories there are, also after the machine that kept one was lost."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest
from tests.fleet.world import BUILD, BUILD_RECORD, FLEET_ID, STUDIO, STUDIO_RECORD
from tests.promise import proves

from muster.cli import show
from muster.errors import NotFound
from muster.fleet.facts import Facts
from muster.fleet.roster import Roster
from muster.verbs.declaration import Nothing
from muster.verbs.repo import Named, listing, origin_of


def listed(folder, *live):
    facts = {
        STUDIO.machine: Facts("linux", "x86_64", repositories=("main", "site")),
        BUILD.machine: Facts("linux", "x86_64", repositories=("site",)),
    }
    known = {each.machine: each for each in (STUDIO_RECORD, BUILD_RECORD)}
    roster = Roster(FLEET_ID, {m: known[m] for m in live}, known, facts=facts)
    named = SimpleNamespace(name_of=lambda machine: known[machine].name)
    now = SimpleNamespace(wall_ms=0)
    core = SimpleNamespace(name="nas", roster=roster, membership=named, now=now)

    def nowhere(_name):
        raise NotFound("no machine may serve it")

    effects = SimpleNamespace(repos=folder, place_of=nowhere)
    daemon = SimpleNamespace(core=core, effects=effects)
    return msgspec.to_builtins(asyncio.run(listing(daemon, None, Nothing())))


@proves("cli.repositories-listed")
@pytest.mark.parametrize(
    "lie",
    [
        {"origin": "--upload-pack=touch /tmp/x"},
        {"origin": "somewhere"},
        {"origin": "https://x:hunter2@example.org/x"},
        {"origin": "https://example.org/\x1b[2J"},
        {"origin": 7},
        {"synced_ms": "long ago"},
        {"unlike": [{}]},
    ],
)
def test_what_a_keeper_says_that_no_repository_can_be_from_counts_as_nothing_said(lie):
    def asked(more):
        said = {
            "name": "other", "keeper": "nas", "branch": "main", "head": "", "follows": True,
            "origin": "https://example.org/x", "synced_ms": 1, "error": "", "unlike": [],
        } | more  # fmt: skip

        async def ask(_machine, _verb, _args):
            return said

        keeper = SimpleNamespace(machine=STUDIO.machine, name="studio")
        core = SimpleNamespace(
            part=lambda _type: SimpleNamespace(keeper=lambda _name: keeper),
        )
        effects = SimpleNamespace(place_of=lambda _name: (None, ""), ask=ask)
        daemon = SimpleNamespace(core=core, effects=effects)
        return asyncio.run(origin_of(daemon, None, Named(name="main")))

    found = asked(lie)
    assert (found.keeper, found.branch, found.origin) == ("studio", "", "")
    assert found.error == "studio does not say"
    # Nor does it say of which repository it speaks, or for whom.
    honest = asked({})
    assert (honest.name, honest.keeper, honest.origin) == (
        "main", "studio", "https://example.org/x"
    )  # fmt: skip


@proves("cli.lost-repositories")
def test_a_repository_that_only_a_lost_machine_kept_is_listed_with_the_way_back(tmp_path):
    before = listed(tmp_path, STUDIO.machine, BUILD.machine)
    assert [each["machines"] for each in before] == [["studio"], ["build", "studio"]]
    assert [each["lost"] for each in before] == [[], []]
    main, site = listed(tmp_path, BUILD.machine)
    assert (main["machines"], main["lost"]) == ([], ["studio"])
    assert (site["machines"], site["lost"]) == (["build"], [])
    shown = show.text("repo", [main, site], {})
    assert "nobody: studio was revoked; `muster repo add main CLONE` brings it back" in shown
    assert shown.count("nobody") == 1
    # A daemon of an older version says nothing of it.
    assert "nobody" not in show.text("repo", [{"name": "x", "head": "", "machines": []}], {})
