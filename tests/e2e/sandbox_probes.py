"""What a program tries that wants out of its sandbox. It runs inside, with the system's Python.

usage: sandbox_probes.py TARGETS_JSON     -- prints {probe: whether it got out}

Each probe returns whether it reached what it must not: a canary outside, or a power it could use.
One that raises did not. Never run it as root outside a sandbox: some of them change the machine.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys

T = json.loads(sys.argv[1])
LIBC = ctypes.CDLL(None, use_errno=True)
PROBES = {}


def probe(function):
    PROBES[function.__name__] = function
    return function


def readable(path):
    with open(path, "rb") as file:
        return len(file.read(1)) > 0


def call(name, *arguments):
    """Whether the kernel did it."""
    return LIBC.syscall(T["calls"][name], *arguments) >= 0


def runs(*argv):
    run = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return run.returncode == 0


def writes(path, text="x", mode="a"):
    with open(path, mode) as file:
        file.write(text)
    return True


def connects(family, address):
    with socket.socket(family) as made:
        made.settimeout(2)
        made.connect(address)
    return True


# --- files of others


@probe
def read_a_secret():
    return readable(T["secret"])


@probe
def read_a_secret_by_my_root():
    return readable("/proc/self/root" + T["secret"])


@probe
def read_a_secret_by_the_root_of_process_1():
    return readable("/proc/1/root" + T["secret"])


@probe
def read_a_secret_by_the_folder_of_process_1():
    return readable("/proc/1/cwd/../../../../../.." + T["secret"])


@probe
def read_a_secret_over_a_link():
    os.symlink(T["secret"], "link")
    return readable("link")


@probe
def read_a_secret_over_a_second_name():
    os.link(T["secret"], "second")
    return readable("second")


@probe
def read_a_secret_by_dots():
    return readable("../" * 12 + T["secret"].lstrip("/"))


@probe
def read_a_secret_with_the_loader():
    """A copied program run by the loader is no way out by itself: it must still find nothing."""
    shutil.copy("/bin/cat", "/tmp/cat")
    loader = next(each for each in T["loaders"] if os.path.exists(each))
    return runs(loader, "/tmp/cat", T["secret"])


@probe
def read_the_passwords():
    return readable("/etc/shadow")


@probe
def see_names_of_people():
    with open("/etc/passwd") as file:
        return "root:" in file.read()


@probe
def see_the_hosts_name_service():
    return os.path.exists("/etc/resolv.conf")


@probe
def see_roots_home():
    return (
        os.path.isdir("/root") and bool(os.listdir("/root")) and not T["work"].startswith("/root")
    )


@probe
def see_other_homes():
    return sorted(os.listdir("/home")) != ["agent"]


@probe
def see_the_machines_temporary_files():
    return os.path.exists(T["in_tmp"])


@probe
def see_shared_memory():
    return os.path.exists("/dev/shm/" + T["in_shm"])


@probe
def see_what_lies_beside_the_work():
    return T["beside"] in os.listdir(os.path.dirname(T["work"]))


@probe
def see_var():
    return os.path.exists("/var/lib") or os.path.exists("/var/log")


@probe
def see_boot_and_sys():
    return os.path.exists("/boot") or os.path.exists("/sys/class")


@probe
def see_roots_program_folders():
    return os.path.exists("/opt") or os.path.exists("/srv") or os.path.exists("/mnt")


# --- writing where others read


@probe
def write_a_program():
    return writes("/usr/probe")


@probe
def write_below_local():
    return writes("/usr/local/bin/probe")


@probe
def write_a_setting():
    return writes("/etc/probe")


@probe
def write_the_root():
    return writes("/probe")


@probe
def write_a_device():
    return writes("/dev/probe")


@probe
def change_what_is_placed():
    return writes(T["placed"])


@probe
def remove_what_is_placed():
    os.unlink(T["placed"])
    return True


@probe
def write_what_is_readable():
    return writes(os.path.join(T["readable"], "text"))


@probe
def make_a_hook():
    return writes(".git/hooks/pre-commit")


@probe
def change_gits_settings():
    return writes(".git/config", "[core]\n\tfsmonitor=touch\n")


@probe
def change_gits_settings_as_git_does():
    return runs("git", "config", "core.fsmonitor", "touch")


@probe
def swap_the_hooks():
    os.rename(".git/hooks", ".git/hooks2")
    os.rename(".git/hooks2", ".git/hooks")
    return True


@probe
def swap_the_repository():
    os.rename(".git", "moved")
    os.rename("moved", ".git")
    return True


@probe
def remove_the_repository():
    shutil.rmtree(".git", ignore_errors=True)
    return not os.path.exists(".git/config") or not os.path.isdir(".git/hooks")


@probe
def make_servers_of_tools():
    return writes(".mcp.json", "{}", "w")


@probe
def replace_servers_of_tools():
    writes("other.json", "{}", "w")
    os.rename("other.json", ".mcp.json")
    return True


@probe
def swap_folders_of_settings():
    """By the call that exchanges two names."""
    os.makedirs("exchanged", exist_ok=True)
    renameat2 = {"x86_64": 316, "aarch64": 276}[T["machine"]]
    return LIBC.syscall(renameat2, -100, b"exchanged", -100, b".vscode", 2) == 0


@probe
def remove_what_is_occupied():
    os.rmdir(".mcp.json")
    return True


@probe
def unlink_what_is_occupied():
    os.unlink(".mcp.json")
    return True


@probe
def make_settings_of_an_editor():
    return writes(".vscode/tasks.json")


@probe
def make_settings_of_an_agent():
    return writes(".claude/settings.json", "{}", "w")


@probe
def make_local_settings_of_an_agent():
    return writes(".claude/settings.local.json", "{}", "w")


@probe
def swap_an_agents_settings():
    os.rename(".claude", "moved")
    return True


@probe
def change_modes_of_what_is_protected():
    os.chmod(".git/hooks", 0o777)
    return True


@probe
def rename_the_works_parent():
    parent = os.path.dirname(T["work"])
    in_memory = os.stat(parent).st_dev == os.stat("/tmp").st_dev
    os.rename(parent, "/tmp/gone")
    # What it has in memory is its own to arrange.
    return not in_memory


@probe
def remove_the_work_itself():
    os.rmdir(T["work"])
    return True


# --- other processes, and what was ours by mistake


@probe
def have_a_descriptor():
    for number in range(3, 1024):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{number}").startswith("/proc/"):
                return True
    return False


@probe
def have_a_secret_variable():
    return any("CANARY" in value for value in os.environ.values())


@probe
def read_a_secret_variable_of_others():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if b"CANARY" in file.read():
                return True
    return False


@probe
def read_the_environment_of_process_1():
    with open("/proc/1/environ", "rb") as file:
        held = file.read().strip(b"\0").split(b"\0")
    return any(each and not each.startswith(b"MUSTER_ATTEMPT=") for each in held)


@probe
def see_arguments_of_the_host():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"CANARY" in file.read():
                return True
    return False


def is_of_the_host(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"CANARY" in file.read()


@probe
def see_a_process_of_the_host():
    return is_of_the_host(T["pid"])


@probe
def signal_a_process_of_the_host():
    os.kill(T["pid"], 0)
    return is_of_the_host(T["pid"])


@probe
def end_process_1():
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGTERM)
    return not os.path.exists("/proc/1")


@probe
def trace_process_1():
    return call("ptrace", 16, 1, 0, 0)


@probe
def trace_a_process_of_my_own():
    pid = os.fork()
    if pid == 0:
        # Who is traced stops at every signal: nobody else may be it.
        os._exit(0 if call("ptrace", 0, 0, 0, 0) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@probe
def read_memory_of_process_1():
    return readable("/proc/1/mem")


@probe
def write_memory_of_process_1():
    return writes("/proc/1/mem")


@probe
def read_anothers_memory():
    return call("process_vm_readv", 1, 0, 0, 0, 0, 0)


@probe
def write_anothers_memory():
    return call("process_vm_writev", 1, 0, 0, 0, 0, 0)


@probe
def take_anothers_descriptor():
    return call("pidfd_getfd", 0, 0, 0)


@probe
def compare_with_another():
    return call("kcmp", 1, os.getpid(), 0, 0, 0)


@probe
def be_more_important():
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return True


@probe
def be_of_real_time():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return True


@probe
def widen_a_limit():
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    return True


# --- the network


@probe
def reach_the_host_by_loopback():
    return connects(socket.AF_INET, ("127.0.0.1", T["tcp"]))


@probe
def reach_the_host_by_loopback_6():
    return connects(socket.AF_INET6, ("::1", T["tcp6"]))


@probe
def reach_the_host_by_its_address():
    return connects(socket.AF_INET, (T["address"], T["tcp_any"]))


@probe
def reach_anything():
    return connects(socket.AF_INET, ("192.0.2.1", 443))


@probe
def reach_the_cloud():
    return connects(socket.AF_INET, ("169.254.169.254", 80))


@probe
def reach_an_abstract_socket():
    return connects(socket.AF_UNIX, "\0" + T["abstract"])


@probe
def reach_a_socket_of_the_host():
    return connects(socket.AF_UNIX, T["socket"])


@probe
def reach_docker():
    return connects(socket.AF_UNIX, "/var/run/docker.sock")


@probe
def reach_the_sessions_bus():
    return connects(socket.AF_UNIX, "/run/dbus/system_bus_socket")


@probe
def ask_a_name_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"\0" * 12, ("192.0.2.53", 53))
    return True


@probe
def resolve_a_name():
    return bool(socket.getaddrinfo("example.com", 80))


@probe
def send_raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return True


@probe
def send_packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    return True


@probe
def send_a_ping():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as made:
        made.sendto(b"\x08\0\0\0\0\0\0\0", ("192.0.2.1", 0))
    return True


@probe
def broadcast():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.sendto(b"x", ("255.255.255.255", 9))
    return True


@probe
def multicast():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", ("224.0.0.251", 5353))
    return True


@probe
def reach_the_machine_below():
    socket.socket(40, socket.SOCK_STREAM)  # AF_VSOCK, which no namespace holds
    return True


@probe
def use_the_kernels_ciphers():
    socket.socket(38, socket.SOCK_SEQPACKET)  # AF_ALG
    return True


@probe
def use_any_other_family():
    for family in range(64):
        if family in (1, 2, 10, 16):
            continue
        with contextlib.suppress(OSError):
            socket.socket(family, socket.SOCK_DGRAM).close()
            return True
    return False


@probe
def have_another_interface():
    return [name for _, name in socket.if_nameindex()] != ["lo"]


@probe
def make_an_interface():
    return runs("ip", "link", "add", "probe0", "type", "dummy")


@probe
def hear_what_the_kernel_tells():
    with socket.socket(16, socket.SOCK_DGRAM, 15) as made:  # NETLINK_KOBJECT_UEVENT
        made.bind((0, 1))
        made.settimeout(0.2)
        return bool(made.recv(16))


# --- namespaces, mounts and the kernel


@probe
def make_a_user_namespace():
    return call("unshare", 0x10000000)


@probe
def make_a_network():
    return call("unshare", 0x40000000)


@probe
def make_a_namespace_by_clone():
    pid = LIBC.syscall(T["calls"]["clone"], 0x10000000 | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return pid > 0


@probe
def make_a_namespace_by_clone3():
    arguments = ctypes.create_string_buffer(
        struct.pack("QQQQQQQQ", 0x10000000, 0, 0, 0, 17, 0, 0, 0)
    )
    pid = LIBC.syscall(T["calls"]["clone3"], arguments, 64)
    if pid == 0:
        os._exit(0)
    return pid > 0


@probe
def run_a_program_that_makes_one():
    return runs("unshare", "-Ur", "true")


@probe
def run_bubblewrap_again():
    return runs("bwrap", "--ro-bind", "/", "/", "true")


@probe
def mount():
    return LIBC.mount(b"x", b"/tmp", b"tmpfs", 0, None) == 0


@probe
def mount_another_proc():
    return LIBC.mount(b"proc", b"/tmp", b"proc", 0, None) == 0


@probe
def bind_over_a_hook():
    return LIBC.mount(b"/tmp", f"{T['work']}/.git/hooks".encode(), None, 4096, None) == 0


@probe
def unmount_the_work():
    return LIBC.umount2(T["work"].encode(), 2) == 0


@probe
def unmount_what_is_protected():
    return LIBC.umount2(f"{T['work']}/.git/hooks".encode(), 2) == 0


@probe
def mount_again_to_write():
    return LIBC.mount(None, b"/usr", None, 0x20 | 0x1000, None) == 0


@probe
def open_a_tree():
    return call("open_tree", -100, b"/", 1)


@probe
def open_a_file_system():
    return call("fsopen", b"tmpfs", 0)


@probe
def change_a_mount():
    return call("mount_setattr", -100, b"/", 0, ctypes.create_string_buffer(32), 32)


@probe
def open_by_handle():
    return call("open_by_handle_at", -100, ctypes.create_string_buffer(64), 0)


@probe
def name_a_handle():
    return call(
        "name_to_handle_at",
        -100,
        b"/",
        ctypes.create_string_buffer(136),
        ctypes.byref(ctypes.c_int()),
        0,
    )


@probe
def enter_a_namespace():
    handle = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    return LIBC.setns(handle, 0) == 0


@probe
def change_the_root():
    os.chroot("/tmp")
    return True


@probe
def pivot_the_root():
    return call("pivot_root", b"/tmp", b"/tmp")


@probe
def use_a_ring():
    return call("io_uring_setup", 8, ctypes.create_string_buffer(120))


@probe
def load_a_program_into_the_kernel():
    return call("bpf", 0, ctypes.create_string_buffer(64), 64)


@probe
def measure_the_kernel():
    return call("perf_event_open", ctypes.create_string_buffer(120), 0, -1, -1, 0)


@probe
def keep_a_key():
    return call("add_key", b"user", b"probe", b"x", 1, -3)


@probe
def look_for_keys():
    return call("keyctl", 0, -3, 1)


@probe
def answer_page_faults():
    return call("userfaultfd", 0)


@probe
def watch_files():
    return call("fanotify_init", 0, 0)


@probe
def read_the_kernels_log():
    return readable("/dev/kmsg") or call("syslog", 3, ctypes.create_string_buffer(64), 64)


@probe
def see_devices():
    shown = ("mem", "kmem", "port", "vda", "sda", "kvm", "fuse", "net/tun", "dri", "snd")
    return any(os.path.exists(f"/dev/{name}") for name in shown)


@probe
def make_a_device():
    os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0))
    return readable("/tmp/disk")


@probe
def make_a_device_in_the_work():
    os.mknod("null", 0o20666, os.makedev(1, 3))
    return True


@probe
def ask_the_kernel_to_stop():
    return call("reboot", 0, 0, 0, 0)


@probe
def press_a_key_of_the_kernels():
    return writes("/proc/sysrq-trigger", "h")


@probe
def open_the_pattern_of_cores():
    with open("/proc/sys/kernel/core_pattern", "r+"):
        return True


@probe
def open_any_kernel_setting():
    return any(
        os.access(os.path.join(folder, name), os.W_OK)
        for folder, _, names in os.walk("/proc/sys")
        for name in names
    )


@probe
def open_a_setting_of_the_network():
    with open("/proc/sys/net/ipv4/ip_forward", "r+"):
        return True


@probe
def change_a_control_group():
    return writes("/sys/fs/cgroup/cgroup.procs", "1")


@probe
def load_a_module():
    return call("finit_module", 0, b"", 0) or call("init_module", 0, 0, b"")


@probe
def set_the_clock():
    return call("settimeofday", struct.pack("qq", 1, 0), None)


@probe
def name_the_machine():
    return runs("hostname", "probe")


@probe
def see_the_machines_name():
    return socket.gethostname() == T["hostname"]


@probe
def swap_memory():
    return call("swapoff", b"/nowhere") or call("swapon", b"/nowhere", 0)


@probe
def have_a_capability():
    with open("/proc/self/status") as file:
        lines = [
            line
            for line in file
            if line.startswith(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
        ]
    return any(int(line.split()[1], 16) for line in lines)


@probe
def be_without_a_filter():
    with open("/proc/self/status") as file:
        told = file.read()
    return "Seccomp:\t2" not in told or "NoNewPrivs:\t1" not in told


@probe
def become_root():
    os.setuid(0)
    return os.geteuid() == 0


@probe
def become_root_with_su():
    return runs("su", "-c", "true")


@probe
def become_another():
    os.setgroups([0])
    return True


@probe
def keep_a_bit_of_root():
    """A program that runs as its owner is worth nothing here, and nothing afterwards."""
    shutil.copy("/usr/bin/id", "/tmp/id")
    os.chmod("/tmp/id", 0o4755)
    said = subprocess.run(["/tmp/id", "-u"], capture_output=True, text=True, check=False).stdout
    return said.strip() == "0"


@probe
def type_into_a_terminal():
    _, other = os.openpty()
    fcntl.ioctl(other, 0x5412, b"x")
    return True


@probe
def have_a_terminal():
    os.open("/dev/tty", os.O_RDWR)
    return True


@probe
def call_with_other_numbers():
    """x32 on x86_64; another machine has no such numbers."""
    if T["machine"] != "x86_64":
        return False
    pid = os.fork()
    if pid == 0:
        LIBC.syscall(0x40000000 + 39)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@probe
def call_what_is_too_new():
    return LIBC.syscall(467, -100, b"/", 0, 0, 0) >= 0 or ctypes.get_errno() != 38


@probe
def fill_the_root():
    return writes("/home/probe") or writes("/home/agent/../probe")


@probe
def share_memory_of_the_host():
    segment = LIBC.shmget(T["shmkey"], 0, 0)
    return segment >= 0


def main():
    found = {}
    for name, function in PROBES.items():
        if T.get("only") and name not in T["only"]:
            continue
        try:
            found[name] = bool(function())
        except BaseException:  # noqa: BLE001 - whatever it ends with, it is not out
            found[name] = False
    print(json.dumps(found))


if __name__ == "__main__":
    main()
