"""Each command and each line of the SDK that a page prints is one: click and the stock SDK know it, the API its path."""

import ast
import html
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
import openai
import pytest
from tests.support import administration
from tests.support.console import Visitor
from tests.support.references import snippets
from tests.support.servers import Server

from tunewarden.cli.commands import cli
from tunewarden.console.pages import PAGES

CODE = re.compile(r"<code[^>]*>(.*?)</code>", re.DOTALL)
# What commands read, as pages name it; some look whether it is there before they run.
FILES = ("chats.jsonl", "log.pem", "receipt.json")
DIRECTORIES = ("my-lora", "DIR", "DIRECTORY", "DATA", "receipts")
SDK = openai.OpenAI(api_key="none", admin_api_key="none", base_url="http://127.0.0.1:1")


def _texts(visitors: list[Visitor], targets: dict[str, list[tuple[str, str]]]) -> Iterator[str]:
    """Yield the code of each page that is there; the second visitor's organization has nothing yet."""
    for page in PAGES:
        names = list(page.route.param_convertors)
        if page.method != "GET" or "static" in page.path or "csv" in page.path:
            continue
        path = page.path
        for name in names:
            path = path.replace(f"{{{name}}}", targets[name][0][1])
        for visitor in visitors:
            cookie = visitor.cookie
            reply = visitor.get(path)
            visitor.cookie = cookie
            if reply.status == 200 and "html" in str(reply.header("content-type")):
                yield from (html.unescape(one) for one in CODE.findall(reply.body.decode()))


@pytest.fixture(scope="module")
def printed(server: Server, targets: dict[str, list[tuple[str, str]]]) -> set[str]:
    owner = Visitor(server, server.owner_key)
    other = Visitor(server, server.make_key("owner", organization="with-nothing"))
    owner.administer(administration.make_admin_key(server.app))
    return {line for text in _texts([owner, other], targets) for line in text.splitlines()}


def _parse(words: list[str]) -> None:
    """Read a command line as click does, without running it. Raises ClickException."""
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = command.make_context(command.name, words, parent=context)
        _, inner, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert inner is not None
        command = inner
    command.make_context(command.name, words, parent=context)


def _refused(line: str) -> str | None:
    """Return why click would refuse what a line begins with."""
    (words,) = snippets.commands(line)
    try:
        _parse(words)
    except click.ClickException as error:
        return f"{line}: {error.format_message()}"
    return None


def test_each_command_is_taken_by_click(
    printed: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes(b"")
    for name in DIRECTORIES:
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    commands = [line for line in printed if line.startswith("tunewarden ")]
    assert len(commands) > 60
    assert [why for line in commands if (why := _refused(line)) is not None] == []


def _called(call: ast.Call) -> inspect.BoundArguments:
    """Bind a call of `client` or `admin` to the method that the SDK has there. Raises AttributeError and TypeError."""
    names: list[str] = []
    found = call.func
    while isinstance(found, ast.Attribute):
        names.insert(0, found.attr)
        found = found.value
    assert isinstance(found, ast.Name)
    assert found.id in ("client", "admin")
    method: object = SDK
    for name in names:
        method = getattr(method, name)
    assert callable(method)
    options = {str(one.arg): one.value for one in call.keywords}
    return inspect.signature(method).bind(*call.args, **options)


def test_each_line_of_the_sdk_is_a_method_of_the_stock_one_and_each_path_one_of_the_api(
    server: Server, printed: set[str]
) -> None:
    known = [
        (
            method.upper(),
            re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path.removeprefix("/v1")))),
        )
        for path, methods in server.get("/openapi.json", key=server.owner_key).json["paths"].items()
        for method in methods
    ]
    lines = [line for line in printed if re.match(r"(client|admin)\.", line)]
    assert len(lines) > 30
    for line in lines:
        call = ast.parse(line, mode="eval").body
        assert isinstance(call, ast.Call)
        bound = _called(call)
        assert isinstance(call.func, ast.Attribute)
        method = call.func.attr.upper()
        if "cast_to" in bound.arguments:
            path = ast.literal_eval(bound.arguments["path"])
            assert any(m == method and p.fullmatch(path) for m, p in known), line


@pytest.mark.parametrize(
    "line", ["tunewarden invites create --email ADDRESS", "tunewarden files look-at file-1"]
)
def test_control_what_click_does_not_know_is_found(line: str) -> None:
    assert _refused(line) is not None


def test_control_what_the_sdk_does_not_have_is_found() -> None:
    call = ast.parse("client.files.look_at()", mode="eval").body
    assert isinstance(call, ast.Call)
    with pytest.raises(AttributeError):
        _called(call)
