"""Which paths of a machine may be asked for, and which lie in which."""

import pytest
from tests.promise import proves

from muster.task.host_path import host_path_refusal, is_of_host, lies_in, writable_refusal


@proves("openings.said")
@pytest.mark.parametrize("path", ["/opt/data", "/opt/data/", "~/datasets", "/opt/a:b", "/etc/ssl"])
def test_a_path_of_the_machine_is_written_from_its_root_or_its_home(path):
    assert host_path_refusal(path) == writable_refusal(path) == ""
    assert is_of_host(path)


@proves("openings.said")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("data", "lies in the work folder"),
        ("./data", "lies in the work folder"),
        ("/", "is all of a disk"),
        ("~", "is all of a home"),
        ("~/", "is all of a home"),
        ("~root/x", "another user's home"),
        ("/opt/../etc", "a plain path"),
        ("/opt/./etc", "a plain path"),
        ("/opt//etc", "a plain path"),
        ("//opt", "a plain path"),
        ("~/../ann", "a plain path"),
        ("/proc/1/root", "belongs to the system"),
        ("/sys", "belongs to the system"),
        ("/dev/sda", "belongs to the system"),
        ("/run/docker.sock", "belongs to the system"),
        ("/var/run/docker.sock", "belongs to the system"),
        ("/opt/*", "must not contain"),
        ("/opt/a\nb", "must not contain"),
        ("/opt/a\x00b", "must not contain"),
        ("/opt/$HOME", "has a variable"),
        ("/opt/${inputs.x}", "has a variable"),
        ("/opt/\udcff", "must be UTF-8"),
    ],
)
def test_what_is_shown_to_nobody_is_refused_with_the_reason(path, says):
    assert says in host_path_refusal(path), host_path_refusal(path)


@proves("openings.said")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        (".git/hooks", "is git's own"),
        (".GIT ", "is git's own"),
        ("git~1/config", "is git's own"),
        ("sub/.git/hooks", "must not lie in .git"),
        ("../x", "a plain path"),
        ("~root/x", "another user's home"),
        ("/", "is all of a disk"),
    ],
)
def test_what_no_attempt_writes_is_refused_with_the_reason(path, says):
    assert says in writable_refusal(path), writable_refusal(path)


def test_a_protected_path_of_the_work_folder_may_be_named_to_write():
    assert writable_refusal(".claude/settings.json") == writable_refusal(".vscode/") == ""
    assert not is_of_host(".vscode")


def test_a_path_lies_in_itself_and_in_what_it_is_below():
    assert lies_in("/opt/data", ["/opt/data/"])
    assert lies_in("/opt/data/a", ["/srv", "/opt/data"])
    assert not lies_in("/opt/database", ["/opt/data"])
    assert not lies_in("/opt", ["/opt/data"])
    assert not lies_in("~/data", ["/Users/ann"])
