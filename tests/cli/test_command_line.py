"""The command line as a person and a script meet it, without any daemon."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from muster.cli import context, git_remote, parse, show
from muster.errors import Unreachable
from muster.fleet.invite import write_invite
from muster.node.host.home import Home
from muster.verbs import EVERY_DAY, completion
from muster.verbs.table import VERBS
from tests.cli.world import environment, everything_in, muster
from tests.ports import free_port
from tests.promise import proves

SHOWN = [v for v in VERBS.values() if not v.hidden]


@proves("cli.empty-is-an-argument")
def test_an_empty_text_is_an_answer_where_one_may_be_and_no_default_takes_its_place():
    command = parse.parse(["init", "--listen", "", "--name", "studio"])
    assert (command.args["listen"], command.args["name"]) == ("", "studio")
    assert "name" not in parse.parse(["init"]).args


@proves("cli.version")
def test_the_version_is_one_line_and_needs_no_machine(tmp_path):
    for words in (("--version",), ("version",)):
        said = muster(tmp_path / "none", *words)
        assert (said.code, said.err) == (0, "")
        assert re.fullmatch(r"muster \d+\.\d+\.\d+\n", said.out)
    assert not (tmp_path / "none").exists()


@proves("cli.help")
def test_the_whole_help_page_names_every_verb_with_its_sentence(tmp_path):
    for words in (("help", "--all"), ("--help", "--all"), ("help", "-a")):
        said = muster(tmp_path, *words)
        assert said.code == 0
        for verb in SHOWN:
            assert re.search(rf"^  {verb.name} +{re.escape(verb.summary)}$", said.out, re.MULTILINE)
        assert "enrol" not in said.out


@proves("cli.help")
def test_the_first_help_page_is_what_a_person_does_every_day_on_one_screen(tmp_path):
    pages = {muster(tmp_path, *words).out for words in ((), ("--help",), ("help",))}
    (page,) = pages
    assert page.count("\n") < 24
    assert all(len(line) <= 80 for line in page.splitlines())
    assert "muster help --all" in page
    named = [name for names in EVERY_DAY.values() for name in names]
    assert len({*named}) == len(named)
    for name in named:
        assert re.search(rf"^  {name} ", page, re.MULTILINE)
        assert not VERBS[name].hidden
        assert not VERBS[name].destroys


_HERE_ONLY = (
    "init", "join", "operator", "device", "peer", "up", "service", "machine",
    "answer", "fetch", "rebuild",
    "vouch", "pause", "drain", "resume", "schema", "version", "completion", "new", "template", "diff", "checkout", "land",
    "delegate", "withdraw", "export", "import", "install", "uninstall", "acp",
    "exec", "cp", "tty", "channel", "mesh", "secret", "notify",
)  # fmt: skip


@proves("cli.help")
@pytest.mark.parametrize("verb", [v.name for v in SHOWN])
def test_each_verb_explains_itself_and_offers_on_only_where_another_machine_may_do_it(verb):
    with pytest.raises(parse.Shown) as shown:
        parse.parse([verb, "--help"])
    text = str(shown.value)
    assert all(flag in text for flag in ("--json", "--home"))
    assert ("--on MACHINE" in text) == (verb not in _HERE_ONLY)
    for arg in VERBS[verb].args:
        # The empty one is what it is where nothing is typed.
        assert (
            ",".join(filter(None, arg.choices)) or arg.name.upper()
        ) in text or f"--{arg.name}" in text


@proves("cli.usage")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stats"], "did you mean `status`"),
        (["zzzzzz"], "muster --help"),
        (["--on", "build"], "asks for nothing"),
        (["invite"], "NAME"),
        (["invite", "laptop", "--hours", "soon"], "--hours"),
        (["invite", "laptop", "--what"], "--what"),
        (["completion", "tcsh"], "tcsh"),
        (["check", "/nonexistent/spec.yaml"], "/nonexistent/spec.yaml"),
        (["status", "too", "many"], "too many"),
    ],
)
def test_words_that_make_no_sense_end_with_2_and_one_sentence(tmp_path, words, says):
    said = muster(tmp_path, *words)
    assert said.code == 2
    assert said.out == ""
    assert says in said.err
    assert said.err.startswith("muster: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


@proves("cli.errors-as-json")
def test_with_json_an_error_is_json_on_standard_error_with_the_same_exit_code(tmp_path):
    usage = muster(tmp_path, "stats", "--json")
    assert usage.error["kind"] == "Usage"
    assert usage.error["exit"] == usage.code == 2
    absent = muster(tmp_path / "none", "--json", "status")
    assert absent.error["kind"] == "NotFound"
    assert absent.error["exit"] == absent.code == 5
    assert absent.out == ""


@proves("cli.absent")
def test_without_a_machine_or_a_daemon_the_command_says_what_to_do(tmp_path):
    home = tmp_path / "home"
    none = muster(home, "status")
    assert (none.code, "muster init" in none.err) == (5, True)
    assert not home.exists()
    assert muster(home, "init", "--listen", "").code == 0
    down = muster(home, "status")
    assert (down.code, "muster up --detach" in down.err) == (7, True)
    assert down.err.count("\n") == 1


@proves("cli.common-flags")
def test_json_on_and_home_may_stand_before_or_after_the_verb(tmp_path):
    before = parse.parse(["--json", "--on", "build", "--home", "/h", "tasks", "--all"])
    after = parse.parse(["tasks", "--all", "--home", "/h", "--on", "build", "--json"])
    assert before == after
    assert (before.verb.name, before.on, before.home, before.json) == ("tasks", "build", "/h", True)
    assert before.args == {"all": True}
    other = tmp_path / "other"
    said = muster(tmp_path / "home", "--home", str(other), "status")
    assert str(other) in said.err


@proves("cli.common-flags")
def test_an_argument_of_a_file_is_read_and_a_dash_is_standard_input(tmp_path):
    (tmp_path / "a.yaml").write_text("muster: 1\n")
    found = parse.parse(["run", str(tmp_path / "a.yaml"), "--again", "--key", "k"])
    assert found.args == {"spec": "muster: 1\n"}
    assert found.options == {"again": True, "key": "k"}
    assert found.files == {"spec": str(tmp_path / "a.yaml")}
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    assert "UTF-8" in muster(tmp_path, "check", str(tmp_path / "b.yaml")).err


@proves("cli.no-traceback")
def test_an_error_nobody_foresaw_is_a_sentence_and_the_traceback_only_when_asked_for(tmp_path):
    script = (
        "import sys; from muster.cli import main, parse\n"
        "parse.parse = lambda words: 1 / 0\n"
        "sys.exit(main.main(['status']))"
    )
    for more, traceback, code in (({}, False, 8), ({"MUSTER_TRACEBACK": "1"}, True, 1)):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(tmp_path, **more), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code
        assert ("Traceback" in done.stderr) == traceback
        assert "ZeroDivisionError" in done.stderr


@proves("cli.interrupt")
def test_ctrl_c_ends_a_waiting_command_with_130_and_no_traceback(tmp_path):
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(home / "run" / "sock"))
        deaf.listen()
        command = subprocess.Popen(
            [sys.executable, "-m", "muster", "status"],
            env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        link, _ = deaf.accept()
        link.recv(1)
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=20)
        link.close()
    assert (command.returncode, out, err.strip()) == (130, "", "")


@proves("cli.interrupt-says-what-may-be")
@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_before_the_answer_to_an_order_says_where_to_look(monkeypatch, capsys, as_json):
    """The order may have been obeyed by then; what only asked leaves nothing behind."""

    def cut(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(context.calls, "stream", cut)
    monkeypatch.setattr(context.CommandContext, "_authority", lambda *_: [{}])
    here = context.CommandContext(parse.parse(["status", *(["--json"] if as_json else [])]))
    for verb, tells in (("run", "runs"), ("send", "sent"), ("renew", ""), ("runs", "")):
        with pytest.raises(KeyboardInterrupt):
            here.ask(verb, {})
        said = capsys.readouterr().err
        if as_json and said:
            said = json.loads(said)["note"]
        assert said.strip() == (f"perhaps handed in; `muster {tells}` tells" if tells else "")
    orders = {name for name, verb in VERBS.items() if verb.auth in ("order", "agent")}
    shown = {name: words.split()[0] for name, words in context._TELLS.items()}
    assert set(shown) <= orders
    assert set(shown.values()) <= set(VERBS)


@proves("cli.full-output")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("streams", ["stdout", "stderr", "both"])
@pytest.mark.parametrize(("words", "code"), [(("status",), 5), (("--help",), 0)])
def test_output_that_finds_no_room_leaves_the_exit_code_as_it_is(tmp_path, streams, words, code):
    """A daemon's log lies on the disk that is full; a script tells by the code what happened."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "muster", *words],
            env=environment(tmp_path / "none"), check=False,
            stdout=full if streams != "stderr" else subprocess.PIPE,
            stderr=full if streams != "stdout" else subprocess.PIPE,
        )  # fmt: skip
    # What was to be shown on standard output was not: the disk is full.
    assert done.returncode == (9 if code == 0 and streams != "stderr" else code)
    said = (done.stderr or b"").decode()
    assert "Traceback" not in said
    assert "our mistake" not in said


@proves("cli.pipe")
def test_a_reader_that_leaves_early_is_no_error_to_talk_about(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "muster", "completion", "bash"],
        env=environment(tmp_path), stdout=writer, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@proves("cli.completion")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_one_that_it_can_read(tmp_path, shell):
    said = muster(tmp_path, "completion", shell)
    assert said.code == 0
    file = tmp_path / "script"
    file.write_text(said.out)
    try:
        done = subprocess.run([shell, "-n", str(file)], capture_output=True, check=False)
    except FileNotFoundError:
        return
    assert (done.returncode, done.stderr) == (0, b"")


@proves("cli.completion")
def test_bash_completes_a_verb_its_flags_and_what_they_may_be(tmp_path):
    file = tmp_path / "script"
    file.write_text(muster(tmp_path, "completion", "bash").out)
    lines = ("inv", "--json invite --ho", "completion z", "answer 7d5e n", f"check {tmp_path}/scr")
    ask = f"source {file}"
    for line in lines:
        words = line.split()
        ask += f"; COMP_WORDS=(muster {line}); COMP_CWORD={len(words)}; _muster; echo ${{COMPREPLY[@]}}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", ask], capture_output=True, text=True, check=True,
        env=environment(tmp_path / "none", PATH=path),
    )  # fmt: skip
    assert done.stdout.splitlines() == ["invite", "--hours --home", "zsh", "no", str(file)]


@proves("cli.completion")
def test_every_word_that_is_begun_goes_on_as_the_table_says():
    rows = {"tasks": [{"task": "7d5e" * 8, "name": ""}], "machines": [{"name": "build"}]}

    class CommandContext:
        def ask(self, verb, args):
            if verb not in rows:
                raise Unreachable("no daemon runs here")
            return rows[verb]

    def offered(*words):
        lines = completion.complete(CommandContext(), completion.Line(words=words)).splitlines()
        return [line.partition("\t")[0] for line in lines]

    assert offered("") == [v.name for v in SHOWN]
    assert "enrol" not in offered("e")
    assert offered("why", "7") == offered("why", "") == ["7d5e7d5e7d5e"]
    assert offered("status", "--on", "") == offered("--on", "b") == ["build"]
    assert offered("--on", "build", "stat") == ["status"]
    assert offered("runs", "") == offered("no-such-verb", "") == offered("status", "") == []
    for verb in SHOWN:
        flags = [f"--{arg.name}" for arg in verb.args if not arg.position]
        found = offered(verb.name, "--")
        assert [each for each in found if each in flags] == flags
        assert ("--on" in found) == (verb.name not in _HERE_ONLY)


@proves("cli.init")
def test_init_makes_a_private_home_with_every_key_once(tmp_path):
    home = tmp_path / "home"
    said = muster(home, "init", "--name", "studio", "--operator", "alice", "--label", "gpu",
                  "--listen", "127.0.0.1:7000", "--json")  # fmt: skip
    assert said.code == 0, said.err
    assert (said.value["name"], said.value["address"]) == ("studio", "127.0.0.1:7000")
    assert home.stat().st_mode & 0o077 == 0
    for name in ("seed", "authority.seed", "operator.seed"):
        assert (home / name).stat().st_mode & 0o177 == 0
        assert len((home / name).read_bytes()) == 32
    assert len({(home / n).read_bytes() for n in ("seed", "authority.seed", "operator.seed")}) == 3
    assert 'labels = ["gpu"]' in (home / "config.toml").read_text()


@proves("cli.init-once")
def test_a_second_init_is_refused_and_changes_nothing(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init").code == 0
    before = everything_in(home)
    again = muster(home, "init", "--name", "other")
    assert again.code == 6
    assert everything_in(home) == before


@proves("cli.init-once")
@pytest.mark.parametrize(
    "words",
    [
        ("--name", "No Spaces"),
        ("--name", "../up"),
        ("--name", "fleet"),
        ("--operator", "Al ice"),
        ("--listen", "nowhere"),
        ("--address", "http://x"),
        ("--label", "a b"),
    ],
)
def test_an_init_that_is_refused_leaves_no_home(tmp_path, words):
    home = tmp_path / "home"
    said = muster(home, "init", *words)
    assert said.code == 3, said.err
    assert said.err.count("\n") == 1
    assert not (home / "seed").exists()
    assert muster(home, "init").code == 0


@proves("cli.init-once")
def test_an_init_that_was_cut_short_goes_on_with_the_same_keys(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init").code == 0
    kept = (home / "authority.seed").read_bytes()
    (home / "seed").rename(home / "joining.seed")
    (home / "fleet.json").unlink()
    assert muster(home, "init").code == 0
    assert (home / "authority.seed").read_bytes() == kept


@proves("cli.join-leaves-nothing")
@pytest.mark.parametrize(
    ("invitation", "code"),
    [("hello", 3), ("muster1.abc.host:1", 3), ("", 2)],
)
def test_a_join_with_a_string_that_is_no_invitation_leaves_nothing_behind(
    tmp_path, invitation, code
):
    said = muster(tmp_path / "home", "join", invitation)
    assert (said.code, said.err.count("\n")) == (code, 1)
    assert not (tmp_path / "home").exists()


@proves("cli.join-leaves-nothing")
def test_a_join_at_an_address_where_nobody_is_says_so_and_leaves_nothing_behind(tmp_path):
    invitation = write_invite("ab" * 32, b"t" * 16, f"127.0.0.1:{free_port()}")
    said = muster(tmp_path / "home", "join", invitation)
    assert (said.code, "127.0.0.1" in said.err) == (7, True)
    assert not (tmp_path / "home").exists()


@proves("cli.operator-only")
def test_client_verbs_refuse_to_act_elsewhere(tmp_path):
    said = muster(tmp_path / "home", "init", "--on", "build")
    assert (said.code, "build" in said.err) == (3, True)
    assert not (tmp_path / "home").exists()


@proves("cli.doctor")
def test_doctor_names_what_is_wrong_how_to_mend_it_and_ends_with_1(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "doctor").code == 1
    assert muster(home, "init", "--listen", "").code == 0
    (home / "operator.seed").chmod(0o644)
    said = muster(home, "doctor", "--json")
    checks = {c["name"]: c for c in said.value["checks"]}
    assert said.code == 1
    assert checks["operator.seed"]["state"] == "wrong"
    assert "chmod 600" in checks["operator.seed"]["text"]
    assert checks["seed"]["state"] == "ok"
    assert checks["daemon"]["mend"] == "muster up --detach"
    assert "as powerful as you" in checks["sandbox"]["text"]


@proves("cli.starts-light")
def test_no_heavy_library_is_loaded_by_a_quick_command(tmp_path):
    script = (
        "import sys, os\nfrom muster.cli import main\n"
        "code = main.main(['status'])\n"
        "heavy = {'msgspec', 'asyncio', 'nacl', 'cryptography', 'rich', 'dataclasses', 'apsw',"
        " 'platformdirs', 'tempfile', 'pathlib'}\n"
        "print(sorted(heavy & set(sys.modules)), code)"
    )
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(home / "run" / "sock"))
        daemon.listen()
        done = subprocess.Popen(
            [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}\n{script}"],
            env=environment(home), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        link, _ = daemon.accept()
        link.recv(1)
        link.close()
        out, _ = done.communicate(timeout=20)
    assert out == "[] 7\n"


@proves("cli.starts-light")
def test_also_where_the_home_is_the_usual_one_only_what_finds_it_is_loaded(tmp_path):
    script = (
        "import sys\nfrom muster.cli import call\ncall.socket_path()\n"
        "heavy = {'msgspec', 'asyncio', 'nacl', 'cryptography', 'dataclasses', 'apsw'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    usual = {k: v for k, v in environment(tmp_path).items() if k != "MUSTER_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**usual, "HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


@proves("cli.starts-light")
def test_a_command_that_signs_loads_what_signs_and_little_else(tmp_path):
    """It took 112 ms, most of it to load what no signature needs."""
    muster(tmp_path, "init", "--listen", "")
    script = (
        "import sys\nfrom muster.cli import context, main\n"
        "sign = context.signing()\n"
        "to = sign.Target('a' * 64, 'hub', 'b' * 64, 1)\n"
        "assert sign.sign('send', {'text': ['hi'], 'to': 'hub'}, to, 'hub')\n"
        "heavy = {'asyncio', 'cryptography', 'dataclasses', 'inspect', 'rich', 'apsw', 'secrets',"
        " 'tomllib', 'typing_extensions', 'muster.fleet.grant', 'muster.agent.mask'}\n"
        "print(sorted(heavy & set(sys.modules)))\nimport typing_extensions"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}\n{script}"],
        env=environment(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


@proves("cli.zero-is-an-argument")
def test_a_zero_that_was_typed_is_handed_on():
    """It equals False, which stands for a flag that was not given."""
    assert parse.parse(["invite", "build", "--hours", "0"]).args["hours"] == 0


def _placed(*words: str) -> str:
    return str(parse.parse(["repo", "add", "main", *words]).args["path"])


@proves("cli.places")
def test_a_folder_is_meant_from_where_the_person_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()
    assert _placed(".") == str(tmp_path)
    assert _placed("src/../x") == str(tmp_path / "x")
    assert _placed("a:b") == str(tmp_path / "a:b")
    for address in ("ssh://host/x", "host:x", "me@host:x", "https://host/x", "muster::hub/main"):
        assert _placed(address) == address
    # On another machine nobody here knows what lies where.
    assert _placed(".", "--on", "build") == "."


@proves("cli.git-finds-a-deep-home")
def test_git_finds_the_socket_of_a_home_whose_path_is_too_long_for_one(tmp_path, monkeypatch):
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 6)
    monkeypatch.delenv("MUSTER_SOCK", raising=False)
    monkeypatch.setenv("MUSTER_HOME", str(deep))
    assert git_remote.call.socket_path() == Home(str(deep)).socket


@proves("cli.the-schema-is-a-file")
def test_the_schema_is_json_with_and_without_being_asked_for_json(tmp_path):
    plain, asked = (muster(tmp_path / "none", "schema", *more).out for more in ((), ("--json",)))
    assert json.loads(plain) == json.loads(asked)


@proves("cli.examples")
def test_each_verb_shows_its_examples_in_its_help():
    """That each does what it says is tried in test_examples.py."""
    for verb in SHOWN:
        with pytest.raises(parse.Shown) as shown:
            parse.parse(["help", verb.name])
        assert verb.examples
        assert all(f"  {line}\n" in str(shown.value) for line in verb.examples)


@proves("cli.help")
def test_help_may_be_asked_for_as_a_word(tmp_path):
    assert muster(tmp_path, "help").out == muster(tmp_path, "--help").out
    assert muster(tmp_path, "help", "send").out == muster(tmp_path, "send", "--help").out
    assert muster(tmp_path, "help", "nope").code == 2


@proves("cli.usage")
@pytest.mark.parametrize("words", [["why", ""], ["invite", ""], ["thread", ""], ["cancel", ""]])
def test_an_empty_word_is_named_before_anything_is_signed_or_asked(words):
    with pytest.raises(parse.Usage, match=rf"{words[0]}: [A-Z]+ is empty"):
        parse.parse(words)


@proves("cli.usage")
def test_a_mistake_in_the_words_is_said_without_saying_muster_twice(tmp_path):
    said = muster(tmp_path, "repo", "lst").err
    assert said.startswith("muster: repo: ")
    assert "muster: muster" not in said


@proves("cli.audit-names")
def test_verifying_something_else_than_the_own_log_is_not_answered_with_the_own_log(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init", "--listen", "").code == 0
    said = muster(home, "audit", "verify", "./evidence")
    assert (said.code, said.out) == (3, "")
    assert "muster audit verify --file" in said.err


@proves("cli.absent")
def test_a_daemon_that_died_is_said_to_have_died_without_numbers_of_the_system(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init", "--listen", "").code == 0
    (home / "run").mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(home / "run" / "sock"))
    said = muster(home, "status")
    assert said.code == 7
    assert "has died" in said.err
    assert "muster up --detach" in said.err
    assert "Errno" not in said.err


@proves("cli.where-sent")
def test_what_was_sent_from_another_machine_is_looked_up_there():
    fresh = {"message": "ab" * 32, "state": "waiting", "fresh": True}
    assert "`muster sent --on build`" in show.text("reply", fresh, {"on": "build"})
    assert "`muster sent`" in show.text("reply", fresh)


@proves("cli.absent")
def test_git_without_the_home_of_a_machine_names_the_variable_that_says_where_it_is(tmp_path):
    program = "import sys; from muster.cli.git_remote import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "origin", "studio/main"],
        env=environment(tmp_path / "none"),
        input="connect git-upload-pack\n\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "set MUSTER_HOME" in done.stderr
    assert done.stderr.count("\n") == 1


@proves("cli.label-taken-by-minus")
@pytest.mark.parametrize(
    ("typed", "to"),
    [
        (["+gpu", "-tests"], ["+gpu", "tests-"]),
        (["-a-b", "--json"], ["a-b-"]),
        (["-o", "wide", "-x"], ["x-"]),
        (["-ojson", "tests-"], ["tests-"]),
        (["--json", "+gpu"], ["+gpu"]),
        (["--", "-tests"], ["-tests"]),
    ],
)
def test_a_label_is_taken_by_a_minus_before_it(typed, to):
    command = parse.parse(["machine", "relabel", "forge", *typed])
    assert command.args["to"] == to


@proves("cli.label-taken-by-minus")
@pytest.mark.parametrize(
    "words",
    [
        ["machine", "rename", "forge", "-tests"],
        ["machine", "relabel", "forge", "--tests"],
        ["machine", "leave", "forge", "-tests"],
        ["machine", "leave", "forge", "tests"],
        ["machine", "relabel", "forge", "a", "--now"],
        ["machine", "rename"],
        ["cancel", "1ae7", "-tests"],
    ],
)
def test_a_minus_means_an_option_everywhere_else(words):
    with pytest.raises(parse.Usage):
        parse.parse(words)
