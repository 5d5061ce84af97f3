"""What only tests call is a promise kept alive for nobody: each name of src is used in src.

A function, a class or a constant of a module counts as used where its own module names it outside
of itself, another one imports it, or a table names it as `module:name`. A method counts as used
where anything is asked for that name.
"""

import ast
import re
from collections.abc import Iterator

from tests.promise import proves
from tests.test_tidy import DOORS, SOURCE, _python

# What no code of ours names, and why it is there all the same.
UNNAMED = {
    "bridge.discord.BRIDGE": "each file that `SERVICES` lists is loaded by it",
    "bridge.discord._Client.on_disconnect": "discord.py calls it",
    "bridge.discord._Client.on_socket_raw_receive": "discord.py calls it",
    "bridge.matrix.BRIDGE": "each file that `SERVICES` lists is loaded by it",
    "bridge.slack.BRIDGE": "each file that `SERVICES` lists is loaded by it",
    "bridge.slack._Socket.connect_to_new_endpoint": "slack_sdk calls it",
    "bridge.telegram.BRIDGE": "each file that `SERVICES` lists is loaded by it",
    "channel.drop.open_channel": "each file that `CHANNELS` lists is opened by it",
    "channel.git.open_channel": "each file that `CHANNELS` lists is opened by it",
    "channel.cloud.open_channel": "each file that `CHANNELS` lists is opened by it",
    "channel.nats.open_channel": "each file that `CHANNELS` lists is opened by it",
    "channel.ssh.open_channel": "each file that `CHANNELS` lists is opened by it",
    "channel.ssh_client.SshPipe.eof_received": "asyncssh calls it",
    "channel.ssh_client.SshPipe.pause_writing": "asyncssh calls it",
    "channel.ssh_client.SshPipe.resume_writing": "asyncssh calls it",
    "channel.ssh_client._Client.validate_host_ca_key": "asyncssh calls it",
    "channel.ssh_client._Client.validate_host_public_key": "asyncssh calls it",
    "channel.http.open_channel": "each file that `CHANNELS` lists is opened by it",
    "channel.http._Complaints.emit": "logging calls it",
    "channel.http.Direct.process_redirect": "websockets calls it",
    "channel.ipc.IpcLink.pause_writing": "asyncio calls it",
    "agent.gateway.names._Name._missing_": "msgspec calls it",
    "channel.ipc.IpcLink.resume_writing": "asyncio calls it",
    "cli.parse._Parser.print_help": "argparse calls it",
    "door.server._Server.capture_signals": "uvicorn calls it",
    "log.segment.PROLOGUE_BYTES_MAX": "what is left free by whoever packs by `weight`",
    "verbs.NOUNS": "`make table` imports them",
    "task.schema.text": "it writes the schema that is published",
}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in _python(SOURCE):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def is_registered(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is found by what it is declared for: a verb by its name, an effect by its type."""
    return any(
        re.match(r"(\w+\.)?(verb|effect)\(", ast.unparse(d)) for d in function.decorator_list
    )


def defined(tree: ast.Module) -> Iterator[str]:
    """Every name that a module makes, its methods with their class."""
    for part in tree.body:
        match part:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not is_registered(part):
                    yield name
            case ast.ClassDef(name=name):
                yield name
        for each in ast.walk(part):
            if isinstance(each, ast.ClassDef):
                functions = ast.FunctionDef | ast.AsyncFunctionDef
                methods = [f for f in each.body if isinstance(f, functions)]
                yield from (f"{each.name}.{f.name}" for f in methods if not is_registered(f))


def named(module: str, tree: ast.Module, known: set[str]) -> Iterator[str]:
    """Every name that a module uses: `module.name`, and `.name` where something is asked for it."""
    alias = {}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(where), names=names):
                for each in names:
                    full = f"{where}.{each.name}".removeprefix("muster.")
                    yield full
                    alias[each.asname or each.name] = full
            case ast.Constant(value=str(text)):
                yield text.removeprefix("muster.").replace(":", ".")
                # The deed of a door is found by the name of the verb.
                yield from (f"{m}.{text}" for m in known if m.startswith("cli.") or m == module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield f".{node.attr}"
            if isinstance(node.value, ast.Name) and alias.get(node.value.id) in known:
                yield f"{alias[node.value.id]}.{node.attr}"
    for part in tree.body:
        own = part.name if isinstance(part, Definition) else ""
        for node in ast.walk(part):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id != own:
                yield f"{module}.{node.id}"


def unused(trees: dict[str, ast.Module]) -> set[str]:
    known = set(trees)
    used = {name for module, tree in trees.items() for name in named(module, tree, known)}
    found = set()
    for module, tree in trees.items():
        for name in defined(tree):
            method = name.rpartition(".")[2]
            # What is started as a program is named as a module.
            door = name == "main" and (module in used or module.rpartition(".")[2] in DOORS)
            if method.startswith("__") or door:
                continue
            if (f".{method}" if "." in name else f"{module}.{name}") not in used:
                found.add(f"{module}.{name}")
    return found


@proves("tidy.no-dead-code")
def test_every_function_class_and_constant_is_used_by_the_product():
    found = unused(modules())
    assert found - set(UNNAMED) == set(), "only tests call these, or nobody: delete them"
    assert set(UNNAMED) - found == set(), "these are used, or gone: strike them off the list"


@proves("tidy.no-dead-code")
def test_what_nobody_calls_is_found_whatever_else_has_its_name():
    trees = {
        "a": ast.parse("def one(): one()\ndef two(): ...\nclass C:\n  def go(self): ...\nX = 1"),
        "b": ast.parse(
            "from muster import a\nfrom muster.c import two\na.X\ndef one(): ...\none()"
        ),
        "c": ast.parse("def two(): ...\nROW = 'muster.a:C'\nROW"),
    }
    assert unused(trees) == {"a.one", "a.two", "a.C.go"}
