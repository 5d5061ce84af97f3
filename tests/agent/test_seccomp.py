"""The filter of the sandbox, run by an interpreter of classic BPF written from its definition."""

import errno
import struct

import pytest
from tests.promise import proves

from muster.agent.sandbox import seccomp
from muster.agent.sandbox.seccomp import ALLOW, ARCHITECTURES, FORBIDDEN, KILL

MACHINES = sorted(ARCHITECTURES)
OTHER = {"x86_64": 0x40000003, "aarch64": 0x40000028}  # i386, 32-bit arm
NEWNS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
THREAD = 0x3D0F00  # what pthread_create asks for


def run(program: bytes, number: int, *arguments: int, audit: int) -> int:
    """What the kernel does with a call: one of SECCOMP_RET_*."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, audit, 0, *padded)
    lines = [struct.unpack("<HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    held, at = 0, 0
    while True:
        code, if_so, if_not, value = lines[at]
        at += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (held,) = struct.unpack_from("<I", data, value)
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += if_so if held == value else if_not
            case 0x35:  # BPF_JMP | BPF_JGE | BPF_K
                at += if_so if held >= value else if_not
            case 0x45:  # BPF_JMP | BPF_JSET | BPF_K
                at += if_so if held & value else if_not
            case 0x06:  # BPF_RET | BPF_K
                return value
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


def asked(machine: str, name: str | int, *arguments: int, audit: int | None = None) -> int:
    architecture = ARCHITECTURES[machine]
    number = architecture.numbers[name] if isinstance(name, str) else name
    return run(seccomp.program(machine), number, *arguments, audit=audit or architecture.audit)


def error(number: int) -> int:
    return 0x00050000 | number


@proves("enclosure.kernel-calls")
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_call_that_reaches_out_of_the_sandbox_is_not_permitted(machine, name):
    if name not in ARCHITECTURES[machine].numbers:
        # x86 alone has ports of its own, and an older way to load libraries.
        assert name in ("iopl", "ioperm", "uselib")
        return
    assert asked(machine, name) == error(errno.EPERM)


@proves("enclosure.kernel-calls")
@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_every_day_are_allowed(machine):
    numbers = {
        "x86_64": (0, 1, 3, 9, 59, 202, 257, 281, 318, 332),
        "aarch64": (56, 57, 63, 64, 221),
    }
    assert {asked(machine, number) for number in numbers[machine]} == {ALLOW}
    assert asked(machine, seccomp._NEWEST) == ALLOW


@proves("enclosure.kernel-calls")
@pytest.mark.parametrize("machine", MACHINES)
def test_a_call_that_is_newer_than_the_table_does_not_exist(machine):
    for number in (seccomp._NEWEST + 1, 500, 1000):
        assert asked(machine, number) == error(errno.ENOSYS)


@proves("enclosure.kernel-calls")
@pytest.mark.parametrize("machine", MACHINES)
def test_another_way_into_the_kernel_ends_the_program(machine):
    assert asked(machine, 0, audit=OTHER[machine]) == KILL
    assert asked("x86_64", 0x40000000 + 39) == KILL


@proves("enclosure.kernel-calls")
@pytest.mark.parametrize("machine", MACHINES)
def test_a_process_and_a_thread_are_made_and_a_namespace_is_not(machine):
    assert asked(machine, "clone", 17) == ALLOW
    assert asked(machine, "clone", THREAD) == ALLOW
    for flag in (NEWNS, NEWUSER, NEWPID, NEWNET, 0x2000000, 0x4000000, 0x8000000):
        assert asked(machine, "clone", 17 | flag) == error(errno.EPERM)
    assert asked(machine, "clone3") == error(errno.ENOSYS)


@proves("enclosure.kernel-calls")
@pytest.mark.parametrize("machine", MACHINES)
def test_only_the_usual_families_of_sockets_are_there(machine):
    allowed = [family for family in range(64) if asked(machine, "socket", family, 1) == ALLOW]
    assert allowed == [1, 2, 10, 16]
    assert asked(machine, "socket", 40) == error(errno.EAFNOSUPPORT)


@proves("enclosure.kernel-calls")
@pytest.mark.parametrize("machine", MACHINES)
def test_nobody_types_into_anothers_terminal_and_the_upper_half_hides_nothing(machine):
    for request in (0x5412, 0x541C):
        assert asked(machine, "ioctl", 0, request) == error(errno.EPERM)
        assert asked(machine, "ioctl", 0, request | 1 << 32) == error(errno.EPERM)
    assert asked(machine, "ioctl", 0, 0x5401) == ALLOW
    assert asked(machine, "personality", 0xFFFFFFFF) == ALLOW
    assert asked(machine, "personality", 0x40000) == error(errno.EPERM)


@proves("enclosure.kernel-calls")
@pytest.mark.parametrize("machine", MACHINES)
def test_every_jump_stays_inside_and_every_way_ends(machine):
    program = seccomp.program(machine)
    count = len(program) // 8
    for at in range(count):
        code, if_so, if_not, _ = struct.unpack("<HBBI", program[at * 8 : at * 8 + 8])
        if code in (0x15, 0x35, 0x45):
            assert at + 1 + max(if_so, if_not) < count
    assert program[-8:-6] == b"\x06\x00"
    assert count < 4096
