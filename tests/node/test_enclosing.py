"""Whether a machine can enclose work, what it says of that, and what keeps it from it."""

import os
from pathlib import Path

import pytest
from tests.promise import proves

from muster import limits
from muster.agent.sandbox.profile import USER_OF_ROOTS
from muster.node.host import enclosing
from muster.node.host.enclosing import (
    MISSING,
    Enclosing,
    Obstacle,
    System,
    obstacle,
    system,
)
from muster.node.host.sandbox_config import SandboxConfig

LINUX = System("linux")
NO_NAMESPACE = "bwrap: No permissions to create new namespace, likely because the kernel"


@pytest.fixture
def bin(tmp_path: Path) -> Path:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    return tmp_path


class Tries:
    """Stands for what is tried: it says what it is told to, and counts."""

    def __init__(self, says: str = "") -> None:
        self.says, self.made = says, list[tuple[str, int]]()

    def __call__(self, program: str, user: int) -> str:
        self.made.append((program, user))
        return self.says


@proves("openings.facts")
def test_a_machine_says_what_a_try_came_to_and_what_its_owner_wants(bin, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tries = Tries()
    here = Enclosing(tries, lambda: LINUX)
    assert here.fact(SandboxConfig(default="on"), str(bin), 0) == {"sandbox": "enforced"}
    assert here.fact(SandboxConfig(default="off"), str(bin), 1) == {"sandbox": "off"}
    # As whom work runs, and not again for every fact.
    assert tries.made == [(str(bin / "bwrap"), USER_OF_ROOTS)]
    tries.says = NO_NAMESPACE
    assert here.fact(SandboxConfig(default="on"), str(bin), 2) == {"sandbox": "enforced"}
    late = limits.FACTS_REFRESH_MS
    assert here.fact(SandboxConfig(default="on"), str(bin), late)["sandbox"].startswith(
        "bwrap: No permissions"
    )
    assert here.fact(SandboxConfig(default="off"), str(bin), late)["sandbox"].startswith(
        "off: bwrap"
    )
    # Another user is another question.
    assert here.fact(SandboxConfig(default="on", user="1234"), str(bin), late)[
        "sandbox"
    ].startswith("bwrap: ")
    assert tries.made[-1] == (str(bin / "bwrap"), 1234)


@proves("openings.facts")
def test_a_machine_without_the_program_says_so_and_tries_nothing(tmp_path):
    tries = Tries()
    here = Enclosing(tries, lambda: LINUX)
    assert here.obstacle(SandboxConfig(default="on"), str(tmp_path), 0) == MISSING
    assert "install the package bubblewrap" in MISSING.mend
    named = here.obstacle(SandboxConfig(default="on", program="/nowhere/bwrap"), str(tmp_path), 0)
    assert named is not None
    assert named.cause == "/nowhere/bwrap is not there"
    assert tries.made == []


@proves("openings.facts")
def test_a_user_that_is_not_there_keeps_it_from_enclosing(bin, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = Enclosing(Tries(), lambda: LINUX).obstacle(
        SandboxConfig(default="on", user="gone"), str(bin), 0
    )
    assert found is not None
    assert "has no such user" in found.cause


@proves("openings.cause")
@pytest.mark.parametrize(
    ("here", "cause", "mend"),
    [
        (System("win32"), "Windows runs no attempts enclosed", 'default = "off"'),
        (System("darwin"), "does not enclose work on macOS", 'default = "off"'),
        (System("linux", namespaces="0"), "user.max_user_namespaces is 0", "sysctl user.max_user"),
        (System("linux", unprivileged="0"), "root alone", "kernel.unprivileged_userns_clone=1"),
        (System("linux", apparmor=True), "AppArmor", "/etc/apparmor.d"),
        (System("linux", container=True, filtered=True), "seccomp", "--security-opt seccomp"),
        (System("linux", container=True), NO_NAMESPACE, 'default = "off"'),
        (System("linux", namespaces="1", unprivileged="1"), NO_NAMESPACE, "another machine"),
    ],
)
def test_what_keeps_a_system_from_it_is_named_with_what_helps(here, cause, mend):
    found = obstacle(NO_NAMESPACE, here)
    assert cause in found.cause
    assert mend in found.mend
    assert len(found.cause) <= 180


def test_what_a_program_says_is_told_on_one_printable_line_and_cut():
    found = obstacle("\x1b[31m" + "x" * 500 + "\nmore", LINUX)
    assert found.cause.isprintable()
    assert len(found.cause) == 180
    assert obstacle(" ", LINUX) == Obstacle("it was tried, and failed", found.mend)


def test_what_a_system_says_of_itself_can_be_read_here():
    assert system().platform == enclosing.sys.platform
