"""What a program tries that wants out of its sandbox, each way with a canary outside.

The probes run once for each kind of daemon (a user's, root's), and each is a test of its own. That
they are able to get out is shown by running them without a sandbox, as a user with no rights.
"""

import ctypes
import json
import os
import platform
import re
import socket
import subprocess
from pathlib import Path

import pytest

from muster.agent.sandbox.seccomp import ARCHITECTURES
from tests.agent import enclosed
from tests.agent.enclosed import DROPPED, KINDS, PYTHON, STRANGER, Place
from tests.e2e import sandbox_starts
from tests.promise import proves

pytestmark = pytest.mark.e2e

PROGRAM = Path(__file__).with_name("sandbox_probes.py")
PROBES = re.findall(r"^@probe\ndef (\w+)\(", PROGRAM.read_text(encoding="utf-8"), re.MULTILINE)
# What gets out where there is no sandbox, whatever the machine.
GETS_OUT = [
    "read_a_secret",
    "read_a_secret_by_my_root",
    "read_a_secret_over_a_link",
    "read_a_secret_by_dots",
    "see_names_of_people",
    "see_the_machines_temporary_files",
    "see_shared_memory",
    "have_a_descriptor",
    "see_what_lies_beside_the_work",
    "see_var",
    "see_boot_and_sys",
    "see_other_homes",
    "make_a_hook",
    "change_gits_settings",
    "change_gits_settings_as_git_does",
    "swap_the_hooks",
    "make_servers_of_tools",
    "replace_servers_of_tools",
    "make_settings_of_an_agent",
    "make_local_settings_of_an_agent",
    "swap_an_agents_settings",
    "change_modes_of_what_is_protected",
    "have_a_secret_variable",
    "read_a_secret_variable_of_others",
    "see_arguments_of_the_host",
    "see_a_process_of_the_host",
    "signal_a_process_of_the_host",
    "trace_a_process_of_my_own",
    "reach_the_host_by_loopback",
    "reach_the_host_by_loopback_6",
    "reach_an_abstract_socket",
    "reach_a_socket_of_the_host",
    "make_a_user_namespace",
    "run_a_program_that_makes_one",
    "look_for_keys",
    "be_without_a_filter",
    "see_the_machines_name",
    "share_memory_of_the_host",
    "swap_the_repository",
]
SHM_KEY = 0x4D757374


class Canaries:
    """What is outside, and told to the probes: a secret, listeners, a process, shared memory."""

    def __init__(self, kind):
        self.place = place = Place(kind)
        self._open = []
        secret = place.top / "operator.seed"
        secret.write_text("CANARY-SEED")
        shown = place.top / "shown"
        shown.mkdir()
        (shown / "text").write_text("read me")
        abstract = f"muster-canary-{os.getpid()}-{kind[0]}"
        self.shared = Path("/dev/shm") / abstract
        self.shared.write_text("CANARY")
        self.loose = Path("/tmp") / abstract
        self.loose.write_text("CANARY")
        plain, wide, six = self._listen("127.0.0.1"), self._listen("0.0.0.0"), 0
        if socket.has_ipv6:
            six = self._listen("::1", socket.AF_INET6)
        self._bound("\0" + abstract)
        path = place.top / "sock"
        self._bound(str(path))
        (place.work / ".claude").mkdir()
        place.own()
        self.user = STRANGER if kind == "user" else DROPPED
        self._sleeper = subprocess.Popen(
            [PYTHON, "-c", "import time; time.sleep(600)  # CANARY"],
            env={"KEY": "CANARY-OTHER"},
            preexec_fn=self._become if enclosed.is_root() else None,  # noqa: PLW1509
        )
        self._segment = ctypes.CDLL(None).shmget(SHM_KEY, 4096, 0o1666)
        self.targets = {
            "secret": str(secret), "beside": secret.name, "in_tmp": str(self.loose),
            "in_shm": self.shared.name, "work": str(place.work), "readable": str(shown),
            "placed": "/run/placed.json", "pid": self._sleeper.pid, "tcp": plain, "tcp_any": wide,
            "tcp6": six, "address": _own_address(), "abstract": abstract, "socket": str(path),
            "hostname": socket.gethostname(), "machine": platform.machine(), "shmkey": SHM_KEY,
            "calls": ARCHITECTURES[platform.machine()].numbers,
            "loaders": ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"],
        }  # fmt: skip
        self.profile = {
            "readable": (str(shown),),
            "placed": {"/run/placed.json": str(secret), "/run/probes.py": str(PROGRAM)},
        }

    def _become(self):
        os.setgroups([])
        os.setresgid(self.user, self.user, self.user)
        os.setresuid(self.user, self.user, self.user)

    def _listen(self, address, family=socket.AF_INET):
        made = socket.create_server((address, 0), family=family)
        self._open.append(made)
        return made.getsockname()[1]

    def _bound(self, address):
        made = socket.socket(socket.AF_UNIX)
        made.bind(address)
        made.listen()
        self._open.append(made)

    def unenclosed(self):
        """Of the user's kind, for it is a user without rights who runs them."""
        program = self.place.top / "probes.py"
        program.write_bytes(PROGRAM.read_bytes())
        program.chmod(0o644)
        return enclosed.apart(
            "user", self._plainly, str(program), {**self.targets, "only": GETS_OUT}
        )

    def _plainly(self, program, targets):
        secret = os.open(targets["secret"], os.O_RDONLY)
        run = subprocess.run(
            [PYTHON, program, json.dumps(targets)],
            cwd=targets["work"],
            env={"PATH": "/usr/bin:/bin", "KEY": "CANARY"},
            pass_fds=(secret,),
            capture_output=True,
            text=True,
            check=False,
        )
        return json.loads(run.stdout)

    def inside(self):
        os.environ["KEY"] = "CANARY-OURS"
        handle = os.open(self.targets["secret"], os.O_RDONLY)
        os.set_inheritable(handle, True)
        try:
            said = self.place.run(
                [PYTHON, "/run/probes.py", json.dumps(self.targets)], ports=(3128,), **self.profile
            )
        finally:
            os.close(handle)
            del os.environ["KEY"]
        assert said["refused"] == ""
        return json.loads(said["out"])

    def close(self):
        self._sleeper.kill()
        self._sleeper.wait()
        ctypes.CDLL(None).shmctl(self._segment, 0, None)
        self.shared.unlink()
        self.loose.unlink()
        for each in self._open:
            each.close()
        self.place.close()


def _own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        try:
            made.connect(("192.0.2.1", 9))
            return made.getsockname()[0]
        except OSError:
            return "127.0.0.1"


@pytest.fixture(scope="module")
def found():
    """What got out, by the kind of daemon; each is tried once."""
    known = {}

    def of(kind):
        enclosed.require(kind)
        if kind not in known:
            canaries = Canaries(kind)
            try:
                known[kind] = canaries.inside()
                left = canaries.place.work / ".git"
                known[kind]["left a hook"] = (left / "hooks" / "pre-commit").exists()
                known[kind]["left settings"] = "fsmonitor" in (left / "config").read_text()
            finally:
                canaries.close()
        return known[kind]

    return of


@proves("enclosure.ways-out")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROBES)
def test_no_way_out_is_open(found, kind, name):
    assert found(kind)[name] is False


@proves("enclosure.ways-out")
@pytest.mark.parametrize("kind", KINDS)
def test_so_many_were_tried_and_nothing_is_left_on_the_host(found, kind):
    tried = found(kind)
    assert len(PROBES) >= 107
    assert set(PROBES) <= set(tried)
    assert not tried["left a hook"]
    assert not tried["left settings"]


@proves("enclosure.ways-out")
def test_the_probes_get_out_where_there_is_no_sandbox():
    enclosed.require("user")
    canaries = Canaries("user")
    try:
        free = canaries.unenclosed()
    finally:
        canaries.close()
    # A container may forbid some by itself.
    may_not = {"make_a_user_namespace", "run_a_program_that_makes_one", "look_for_keys"}
    may_not |= {"be_without_a_filter", "trace_a_process_of_my_own", "reach_the_host_by_loopback_6"}
    assert [name for name, out in free.items() if not out and name not in may_not] == []
    assert len(free) == len(GETS_OUT)


WORKS = {
    "a pipe of programs": "echo hi | cat | tr h H",
    "a file in the work folder": "echo x >made && cat made",
    "a file in the home": "echo x >~/made && cat ~/made",
    "a file in memory": "f=$(mktemp) && echo x >$f && cat $f",
    "git": "git init -q other && cd other && echo x >f && git add -A && git -c user.name=a -c "
    "user.email=a@b commit -qm x && git log --oneline | wc -l",
    "a thread": f"{PYTHON} -c 'import threading as t; x = t.Thread(target=print, args=(1,)); "
    "x.start(); x.join()'",
    "the loopback": f'{PYTHON} -c \'import socket as s; a = s.create_server(("127.0.0.1", 0)); '
    "s.create_connection(a.getsockname()); print(1)'",
    "a pseudo terminal": f"{PYTHON} -c 'import os; print(len(os.openpty()))'",
    "shared memory": f"{PYTHON} -c 'from multiprocessing import shared_memory as m; "
    "x = m.SharedMemory(create=True, size=9); x.unlink(); print(1)'",
    "another session": "setsid -w echo 1",
}


@proves("enclosure.attempts-inside")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", WORKS)
def test_what_programs_need_every_day_works(kind, what):
    enclosed.require(kind)
    place = Place(kind)
    try:
        said = place.run(["/bin/sh", "-ec", WORKS[what]])
    finally:
        place.close()
    assert (said["refused"], said["code"], said["err"]) == ("", 0, "")
    assert said["out"].strip()


@proves("enclosure.limits")
@pytest.mark.parametrize("kind", KINDS)
def test_limits_are_those_of_the_order(kind):
    enclosed.require(kind)
    place = Place(kind)
    limits = {"memory_bytes": 1 << 30, "processes": 20, "file_bytes": 1 << 20}
    program = (
        "import os, resource as r\n"
        "print(r.getrlimit(r.RLIMIT_AS)[1], r.getrlimit(r.RLIMIT_FSIZE)[1], "
        "r.getrlimit(r.RLIMIT_NPROC)[1], r.getrlimit(r.RLIMIT_CORE)[1])\n"
        "made = 0\n"
        "try:\n"
        "    while made < 100:\n"
        "        if os.fork() == 0: import time; time.sleep(60)\n"
        "        made += 1\n"
        "except BlockingIOError:\n"
        "    pass\n"
        "print(0 < made < 20)\n"
        "try: bytearray(2 << 30)\n"
        "except MemoryError: print('too much')\n"
    )
    try:
        said = place.run([PYTHON, "-c", program], **limits)
    finally:
        place.close()
    assert said["out"].split("\n")[:3] == [f"{1 << 30} {1 << 20} 20 0", "True", "too much"]


@proves("enclosure.starts")
@pytest.mark.parametrize("kind", KINDS)
def test_thirty_starts_in_a_row_have_their_listener(kind):
    """`python -m tests.e2e.sandbox_starts` does a thousand."""
    enclosed.require(kind)
    assert sandbox_starts.failures(kind, 30) == []
