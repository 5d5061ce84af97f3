"""`muster notify` as a person types it, to a real mail server and a real web server."""

import asyncio
import io
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from muster.errors import Broken, Malformed, NotFound, Refused
from muster.fleet.escalation import Service
from muster.limits import NOTIFY_SERVICES_MAX
from muster.node.host import keychain
from muster.node.host.home import Home
from muster.node.host.notify_store import FILE, NotifyStore, used_as
from muster.node.services import notifier
from muster.verbs import notify
from tests.cli.terminal import Terminal
from tests.cli.world import environment, muster
from tests.node.memory_keyring import Keyring
from tests.ports import free_port
from tests.promise import proves

SECRET = "canary-51ab0c"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("notify") / "home"
    muster(found, "init", "--name", "studio", "--operator", "alice", "--listen", "")
    return found


class Mail:
    """A mail server that asks for a password; `got` are the mails that came."""

    def __init__(self) -> None:
        from aiosmtpd.controller import Controller
        from aiosmtpd.smtp import AuthResult

        self.got: list[Any] = []

        def check(_server: Any, _session: Any, _envelope: Any, _mechanism: Any, data: Any) -> Any:
            good = (data.login, data.password) == (b"muster", SECRET.encode())
            return AuthResult(success=good, handled=False)

        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=free_port(),
            authenticator=check,
            auth_require_tls=False,
        )

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.got.append(envelope)
        return "250 ok"

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    @property
    def port(self) -> int:
        return int(self._controller.port)


class Hook(BaseHTTPRequestHandler):
    """A web server that is told something: `/refuse` is none of its pages."""

    got: list[tuple[str, bytes]] = []  # noqa: RUF012 - of one test at a time

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, raw))
        self.send_response(403 if "refuse" in self.path else 200)
        self.end_headers()

    def do_GET(self) -> None:
        self.got.append((self.path, b""))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def web() -> Iterator[str]:
    Hook.got.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@proves("notify.real-mail", "notify.real-webhook", "notify.address-hidden")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_services_are_added_tried_listed_and_removed_and_no_address_is_ever_shown(home, web):
    with Mail() as mail:
        at = f"127.0.0.1:{mail.port}/?from=muster@fleet.test&to=alice@home.test&mode=insecure"
        addresses = {
            "mail": f"mailto://muster:{SECRET}@{at}",
            "wrong": f"mailto://muster:{SECRET}-not@{at}",
            "hook": f"json://{web}/{SECRET}",
            "closed": f"json://{web}/refuse-{SECRET}",
        }
        store, said = NotifyStore(home), []
        for name in ("mail", "hook"):
            url = addresses.pop(name)
            said.append(muster(home, "notify", "add", name, "--json", stdin=f"{url}\n"))
        assert [each.value["as"] for each in said] == ["mail", "push"], said
        for name, url in addresses.items():
            store.add(name, url, used_as(url), in_keychain=False)
        assert stat.S_IMODE((home / FILE).stat().st_mode) == 0o600
        listed = muster(home, "notify", "list", "--json")
        assert [(e["name"], e["as"], e["place"]) for e in listed.value] == [
            ("mail", "mail", "file"), ("hook", "push", "file"),
            ("wrong", "mail", "file"), ("closed", "push", "file"),
        ]  # fmt: skip
        tried = muster(home, "notify", "test", "--json")
        said += [listed, tried]
    assert tried.code == 1
    found = {each["name"]: (each["state"], each["reason"]) for each in tried.value}
    assert found["mail"] == found["hook"] == ("sent", "")
    assert found["wrong"][0] == found["closed"][0] == "failed"
    assert "535" in found["wrong"][1]
    assert "403" in found["closed"][1]
    raw = mail.got[0].content.decode()
    assert mail.got[0].rcpt_tos == ["alice@home.test"]
    # Each line is a line of its own, and nothing of it is HTML.
    assert "A test of `muster notify test` on studio.\r\nNothing is wrong:" in raw
    assert "text/html" not in raw
    path, body = Hook.got[0]
    assert SECRET in path
    assert "Nothing is wrong" in json.loads(body)["message"]
    said.append(muster(home, "notify", "remove", "wrong", "--yes"))
    assert said[-1].code == 0
    assert [name for name, _ in store.services()] == ["mail", "hook", "closed"]
    assert not [each for each in said if SECRET in each.out + each.err]
    others = [p for p in home.rglob("*") if p.is_file() and p != home / FILE]
    assert not [p for p in others if SECRET.encode() in p.read_bytes()]


@proves("notify.address-hidden")
def test_at_a_terminal_the_address_is_asked_for_and_not_shown(home):
    words = [sys.executable, "-m", "muster", "notify", "add", "phone"]
    terminal = Terminal(words, environment(home))
    terminal.see("address of phone: ")
    terminal.type(f"ntfy://{SECRET}\n")
    terminal.see("phone is told")
    assert terminal.end() == 0
    assert SECRET not in terminal.text
    assert NotifyStore(home).url("phone") == f"ntfy://{SECRET}"


@proves("notify.unknown-refused")
@pytest.mark.parametrize(
    ("url", "apprise", "kept"),
    [
        (f"ntfy://{SECRET}", True, True),
        (f"https://example.org/{SECRET}", True, False),
        (f"carrier-pigeon://{SECRET}", True, False),
        # A part is missing.
        (f"slack://{SECRET}", True, False),
        # Nobody can say, so nothing is refused.
        (f"carrier-pigeon://{SECRET}", False, True),
    ],
)
def test_an_address_that_apprise_cannot_read_is_refused_and_not_quoted(
    tmp_path, monkeypatch, url, apprise, kept
):
    home = Home(tmp_path / "home")
    home.create()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(url.encode())))
    monkeypatch.setattr(Home, "require", lambda _: None)
    if not apprise:
        monkeypatch.setattr(notifier, "_CHILD", "muster.nowhere")
    context: Any = SimpleNamespace(home=home, running=lambda: False)
    if kept:
        notify.notify(context, notify.Action("add", "phone"))
    else:
        with pytest.raises(Malformed, match="Apprise cannot read this address") as refused:
            notify.notify(context, notify.Action("add", "phone"))
        assert SECRET not in str(refused.value)
    assert (home.path / FILE).exists() is kept


@proves("notify.address-hidden", "notify.settings")
def test_what_is_kept_is_checked_and_a_damaged_file_is_not_quoted(tmp_path, monkeypatch):
    store = NotifyStore(tmp_path)
    assert store.services() == ()
    for name, url in (
        ("phone", SECRET), ("phone", f"ntfy://{SECRET}\nx"), ("phone", ""), ("Phone!", "ntfy://x"),
        ("phone", "ntfy://" + "x" * 5000), ("phone", "ntfy://a b"),
    ):  # fmt: skip
        with pytest.raises(Malformed) as refused:
            store.add(name, url, "push", in_keychain=False)
        assert SECRET not in str(refused.value)
    monkeypatch.setattr(keychain, "find", lambda: None)
    with pytest.raises(NotFound):
        store.add("phone", f"ntfy://{SECRET}", "push", in_keychain=True)
    assert not (tmp_path / FILE).exists()
    chain = Keyring()
    monkeypatch.setattr(keychain, "find", lambda: chain)
    store.add("phone", f"ntfy://{SECRET}", "push", in_keychain=True)
    store.add("team", f'slack://{SECRET}-ü"\\', "chat", in_keychain=False)
    assert store.services() == (Service("phone", "push"), Service("team", "chat"))
    assert f"ntfy://{SECRET}" not in (tmp_path / FILE).read_text(encoding="utf-8")
    assert store.url("phone") == f"ntfy://{SECRET}"
    assert store.url("team") == f'slack://{SECRET}-ü"\\'
    store.remove("phone")
    with pytest.raises(NotFound):
        store.url("phone")
    with pytest.raises(NotFound):
        store.remove("phone")
    for number in range(NOTIFY_SERVICES_MAX - 1):
        store.add(f"n-{number}", "ntfy://x", "push", in_keychain=False)
    with pytest.raises(Refused):
        store.add("one-more", "ntfy://x", "push", in_keychain=False)
    good = (tmp_path / FILE).read_bytes()
    for raw in (f'[service.x]\nas = "{SECRET}"\n'.encode(), f"{SECRET} =".encode(), b"\xff", b"a=1",
                b"#" * 300_000):  # fmt: skip
        (tmp_path / FILE).write_bytes(raw)
        with pytest.raises(Broken) as broken:
            store.services()
        assert SECRET not in str(broken.value)
    (tmp_path / FILE).write_bytes(good)
    (tmp_path / FILE).chmod(0o640)
    with pytest.raises(Broken, match="chmod 600"):
        store.url("team")
    assert [used_as(u) for u in ("MAILTO://x", "slack://x", "ntfy://x")] == ["mail", "chat", "push"]


@proves("notify.bounded-child", "notify.heartbeat")
def test_whatever_becomes_of_the_program_that_tells_it_is_a_reason(web, monkeypatch, tmp_path):
    def asked(**what: Any) -> str:
        return asyncio.run(notifier.ask(what))

    assert asked(get=f"http://{web}/alive") == ""
    assert Hook.got[-1][0] == "/alive"
    assert "address of the web" in asked(get="file:///etc/passwd")
    assert "no address" in asked(url="nonsense", title="t", body="b")
    assert asked(nothing=1)
    assert "no service" in asyncio.run(notifier.deliver(tmp_path, "phone", "t", "b"))
    monkeypatch.setattr(notifier, "NOTIFY_S_MAX", 0.05)
    assert "no answer within" in asked(get=f"http://{web}/slow")
    monkeypatch.setattr(notifier, "NOTIFY_S_MAX", 20)
    monkeypatch.setattr(notifier, "_CHILD", "muster.nowhere")
    assert asked(get=f"http://{web}/") == "the program that tells it died"
    monkeypatch.setattr(sys, "executable", os.fspath(tmp_path / "none"))
    assert "could be started" in asked(get=f"http://{web}/")
