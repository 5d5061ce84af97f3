"""The bounds of an enclosed attempt's control group, where the machine's groups have any."""

import sys

import pytest
from tests.promise import proves

from muster.agent import cgroup

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")


@pytest.fixture
def group(tmp_path):
    for name in ("pids.max", "memory.max"):
        (tmp_path / name).touch()
    return cgroup.Group(str(tmp_path))


@proves("enclosure.limits")
def test_a_group_is_bounded_by_what_its_order_says_and_room_for_what_is_ours(group, tmp_path):
    group.limit(4096, 1 << 30)
    assert (tmp_path / "pids.max").read_text() == "4112"
    assert (tmp_path / "memory.max").read_text() == str(1 << 30)


@proves("enclosure.limits")
def test_what_has_no_bound_or_a_kernel_without_is_left_as_it_is(group, tmp_path):
    group.limit(0, 0)
    assert (tmp_path / "pids.max").read_text() == ""
    (tmp_path / "pids.max").unlink()
    group.limit(4096, 0)
    assert [each.name for each in tmp_path.iterdir()] == ["memory.max"]


@proves("enclosure.limits")
@pytest.mark.parametrize("sandbox", [{}, {"processes": 9, "memory_bytes": 1 << 20}])
def test_the_shim_bounds_the_group_of_what_is_enclosed_alone(group, tmp_path, monkeypatch, sandbox):
    from muster.agent import shim

    monkeypatch.setattr(shim.cgroup, "make", lambda _mark: group)
    # It would have our standard output never wait.
    monkeypatch.setattr(shim, "Unsent", lambda *_: None)
    monkeypatch.setattr(shim, "DRIVERS", {"shell": lambda _order: None})
    order = {"driver": "shell", "grace_s": 1, "timeout_s": 1, "env": {}, "sandbox": sandbox}
    shim.Shim(order, b"", subreaper=False)
    said = [(tmp_path / name).read_text() for name in ("pids.max", "memory.max")]
    assert said == (["25", str(1 << 20)] if sandbox else ["", ""])
