"""What a program in the sandbox may not ask of the kernel, as a filter of classic BPF.

Rule 1: a filter lists what is forbidden: programs of any kind work, and what they never need fails.
Rule 2: a call that this table does not know yet does not exist (ENOSYS), as on an older kernel.
Rule 3: another instruction set's way into the kernel ends the program: its numbers are other calls.
Rule 4: pure; written by hand because every library for it is a foreign one, and the shim has none.

What is forbidden reaches out of a sandbox (mounts, namespaces, other processes, file handles), has
been the way out of many others (bpf, io_uring, userfaultfd, perf, keys), or changes the machine.
Of sockets there are UNIX, INET, INET6 and NETLINK. AF_VSOCK is in no namespace: in a virtual
machine it reaches the host.
"""

import errno
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
_ERROR: Final = 0x00050000

# Where in struct seccomp_data (little-endian): the call's number, the architecture, its arguments.
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16

_X32: Final = 0x40000000
_EVERY_NEW_NAMESPACE: Final = 0x7E020080
_FAMILIES: Final = (1, 2, 10, 16)
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
# To ask, to have Linux, and the memory layout of old programs, as Docker permits them.
_PERSONALITIES: Final = (0xFFFFFFFF, 0x0, 0x8, 0x20000, 0x20008)

FORBIDDEN: Final = (
    "acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime",
    "delete_module", "fanotify_init", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick",
    "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl",
    "kcmp", "kexec_file_load", "kexec_load", "keyctl", "listmount", "lookup_dcookie", "mount",
    "mount_setattr", "move_mount", "name_to_handle_at", "nfsservctl", "open_by_handle_at",
    "open_tree", "perf_event_open", "pidfd_getfd", "pivot_root", "process_vm_readv",
    "process_vm_writev", "ptrace", "quotactl", "quotactl_fd", "reboot", "request_key", "setns",
    "settimeofday", "statmount", "swapoff", "swapon", "syslog", "umount2", "unshare",
    "userfaultfd", "uselib", "vhangup",
)  # fmt: skip

# Since they got the same numbers everywhere.
_SHARED: Final = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "clone3": 435, "pidfd_getfd": 438, "mount_setattr": 442, "quotactl_fd": 443, "statmount": 457,
    "listmount": 458,
}  # fmt: skip
# removexattrat, of Linux 6.13.
_NEWEST: Final = 466


_Line = tuple[int, int, int, int]


class Architecture(NamedTuple):
    """What the filter needs to know of one instruction set."""

    audit: int
    numbers: dict[str, int]
    has_x32: bool = False


ARCHITECTURES: Final = {
    "x86_64": Architecture(
        0xC000003E,
        _SHARED
        | {
            "ioctl": 16, "socket": 41, "clone": 56, "ptrace": 101, "syslog": 103, "uselib": 134,
            "personality": 135, "vhangup": 153, "pivot_root": 155, "adjtimex": 159, "chroot": 161,
            "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167,
            "swapoff": 168, "reboot": 169, "iopl": 172, "ioperm": 173, "init_module": 175,
            "delete_module": 176, "quotactl": 179, "nfsservctl": 180, "lookup_dcookie": 212,
            "clock_settime": 227, "kexec_load": 246, "add_key": 248, "request_key": 249,
            "keyctl": 250, "unshare": 272, "perf_event_open": 298, "fanotify_init": 300,
            "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308,
            "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313,
            "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
        },
        has_x32=True,
    ),
    "aarch64": Architecture(
        0xC00000B7,
        _SHARED
        | {
            "lookup_dcookie": 18, "ioctl": 29, "umount2": 39, "mount": 40, "pivot_root": 41,
            "nfsservctl": 42, "chroot": 51, "vhangup": 58, "quotactl": 60, "acct": 89,
            "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105,
            "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117,
            "reboot": 142, "settimeofday": 170, "adjtimex": 171, "socket": 198, "add_key": 217,
            "request_key": 218, "keyctl": 219, "clone": 220, "swapon": 224, "swapoff": 225,
            "perf_event_open": 241, "fanotify_init": 262, "name_to_handle_at": 264,
            "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270,
            "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "bpf": 280,
            "userfaultfd": 282, "kexec_file_load": 294,
        },
    ),
}  # fmt: skip


def program(machine: str) -> bytes:
    """The filter for `platform.machine()`; KeyError where no table is known for it."""
    architecture = ARCHITECTURES[machine]
    numbers = architecture.numbers
    lines = [
        _line(_LOAD, _ARCHITECTURE_AT),
        _line(_EQUAL, architecture.audit, 1, 0),
        _line(_RETURN, KILL),
        _line(_LOAD, _NUMBER_AT),
    ]
    if architecture.has_x32:
        lines += [_line(_AT_LEAST, _X32, 0, 1), _line(_RETURN, KILL)]
    lines += [_line(_AT_LEAST, _NEWEST + 1, 0, 1), _line(_RETURN, _ERROR | errno.ENOSYS)]
    for number in sorted(numbers[name] for name in FORBIDDEN if name in numbers):
        lines += [_line(_EQUAL, number, 0, 1), _line(_RETURN, _ERROR | errno.EPERM)]
    # Its flags are behind a pointer, where no filter can look; libraries fall back to `clone`.
    lines += [
        _line(_EQUAL, numbers["clone3"], 0, 1),
        _line(_RETURN, _ERROR | errno.ENOSYS),
        # CLONE_NEW* of any kind.
        _line(_EQUAL, numbers["clone"], 0, 4),
        _line(_LOAD, _ARGUMENTS_AT),
        _line(_ANY_BIT, _EVERY_NEW_NAMESPACE, 0, 1),
        _line(_RETURN, _ERROR | errno.EPERM),
        _line(_RETURN, ALLOW),
    ]
    lines += _only(numbers["socket"], _FAMILIES, errno.EAFNOSUPPORT)
    lines += _only(numbers["personality"], _PERSONALITIES, errno.EPERM)
    # Typing into a terminal that is somebody else's.
    lines += [
        _line(_EQUAL, numbers["ioctl"], 0, 4),
        _line(_LOAD, _ARGUMENTS_AT + 8),
        _line(_EQUAL, _TIOCSTI, 1, 0),
        _line(_EQUAL, _TIOCLINUX, 0, 1),
        _line(_RETURN, _ERROR | errno.EPERM),
        _line(_RETURN, ALLOW),
    ]
    return struct.pack("<" + len(lines) * "HBBI", *(each for line in lines for each in line))


def _only(number: int, values: Sequence[int], error: int) -> list[_Line]:
    """The call only with one of these as its first argument."""
    checks = [_line(_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [
        _line(_EQUAL, number, 0, len(values) + 3),
        _line(_LOAD, _ARGUMENTS_AT),
        *checks,
        _line(_RETURN, _ERROR | error),
        _line(_RETURN, ALLOW),
    ]


def _line(code: int, value: int, if_so: int = 0, if_not: int = 0) -> _Line:
    return code, if_so, if_not, value
