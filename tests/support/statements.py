"""The SQL in the modules of the server, for the rules about it.

It is found however it is written: in one text, in several that are added, joined or formatted, in constants that are
put into it, in upper or lower case.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[2] / "src" / "tunewarden"
IS_SQL = re.compile(
    r"\b(?:SELECT|FROM|JOIN|INSERT\s+INTO|UPDATE|DELETE\s+FROM|WHERE)\b"
    # In lower case these words are English too, so that it takes two of them, in order.
    r"|(?i:\bselect\b.+\bfrom\b|\binsert\s+into\b|\bupdate\b.+\bset\b|\bdelete\s+from\b)",
    re.DOTALL,
)
# The driver, which is given every statement, by the beginning of its modules' names.
DRIVER = "db/sqlite"
# Where a text is put that the source does not say.
UNSAID = "{}"
# What a statement is given to: methods of a transaction and of the database.
METHODS = frozenset({"run", "run_each", "row", "rows", "peek", "pages", "execute"})
RECEIVERS = frozenset({"tx", "database"})


class Statement(NamedTuple):
    """A text that is SQL: with what is put into it, and which of that the source does not say."""

    text: str
    put: list[ast.expr]
    unsaid: list[ast.expr]


@cache
def texts(tree: ast.Module) -> tuple[Statement, ...]:
    """Return every text of a module that is SQL, docstrings aside."""
    return tuple(_texts(tree))


def _texts(tree: ast.Module) -> Iterator[Statement]:
    nodes = list(ast.walk(tree))
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    given = {sql for node in nodes if isinstance(node, ast.Call) and (sql := _given_sql(node))}
    resolver = _resolver(tree)
    for sql in given:
        if not _is_composed(sql) and not resolver.is_said_elsewhere(sql):
            yield Statement(UNSAID, [sql], [sql])
    skipped: set[ast.AST] = set(docstrings)
    for node in nodes:  # breadth first: the outermost comes before its parts
        if not isinstance(node, ast.expr) or node in skipped or not _is_composed(node):
            continue
        skipped |= {*ast.walk(node)}
        put: list[ast.expr] = []
        unsaid: list[ast.expr] = []
        text = resolver.text(node, put, unsaid)
        if IS_SQL.search(text) or node in given:
            yield Statement(text, put, unsaid)


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module of the server by its path below the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), parsed(path)


@cache
def parsed(path: Path) -> ast.Module:
    """Return a module's tree."""
    return ast.parse(path.read_text("utf-8"))


class _Resolver:
    """Says the text of an expression, with the constants of its module and of those that it imports."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._constants = _constants(tree)
        self._imports = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tunewarden")
            for alias in node.names
        }

    def text(self, node: ast.expr, put: list[ast.expr], unsaid: list[ast.expr]) -> str:
        """Return what an expression says, with UNSAID for what it does not."""
        if isinstance(node, ast.Constant):
            return str(node.value)
        pieces = _pieces(node)
        if pieces is not None:
            return "".join(
                piece if isinstance(piece, str) else self.text(piece, put, unsaid)
                for piece in pieces
            )
        put.append(node)
        constant = self._constant(node)
        if constant is None:
            unsaid.append(node)
            return UNSAID
        tree, value = constant
        return _resolver(tree).text(value, [], unsaid) if tree else self.text(value, [], unsaid)

    def is_said_elsewhere(self, node: ast.expr) -> bool:
        """Return whether this is a name of nothing but texts, each of which is found where it is given the name."""
        if self._constant(node) is not None:
            return True
        uses = [one for one in ast.walk(self._tree) if isinstance(one, ast.Name | ast.arg)]
        name = node.id if isinstance(node, ast.Name) else ""
        bound = [one for one in uses if isinstance(one, ast.Name) and one.id == name]
        stored = {one for one in bound if isinstance(one.ctx, ast.Store)}
        texts = {
            one.targets[0]
            for one in ast.walk(self._tree)
            if isinstance(one, ast.Assign) and _is_composed(one.value)
        }
        is_argument = any(isinstance(one, ast.arg) and one.arg == name for one in uses)
        return bool(stored) and stored <= texts and not is_argument

    def _constant(self, node: ast.expr) -> tuple[ast.Module | None, ast.expr] | None:
        """Return the value of a constant and the module that it is of, None: this one."""
        if isinstance(node, ast.Name) and node.id in self._constants:
            return None, self._constants[node.id]
        module: str | None = None
        name = ""
        if isinstance(node, ast.Name) and node.id in self._imports:
            module, name = self._imports[node.id]
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in self._imports
        ):
            package, imported = self._imports[node.value.id]
            module, name = f"{package}.{imported}", node.attr
        path = SOURCE.parent.joinpath(*(module or "").split(".")).with_suffix(".py")
        if module is None or not path.is_file():
            return None
        tree = parsed(path)
        found = _constants(tree).get(name)
        return None if found is None else (tree, found)


@cache
def _resolver(tree: ast.Module) -> _Resolver:
    return _Resolver(tree)


@cache
def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the texts that a module gives a name outside of functions, once and for all."""
    stored = Counter(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    return {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and stored[node.targets[0].id] == 1
        and _is_composed(node.value)
    }


def _given_sql(call: ast.Call) -> ast.expr | None:
    """Return the statement that a call is given; None if it is given none."""
    if not isinstance(call.func, ast.Attribute):
        return None
    receiver = ast.unparse(call.func.value).rpartition(".")[2].lstrip("_")
    if receiver == "cursors" and call.func.attr in {"position", "ByTime"}:
        return call.args[1]
    is_given = receiver in RECEIVERS and call.func.attr in METHODS and bool(call.args)
    return call.args[0] if is_given else None


def _is_composed(node: ast.expr) -> bool:
    """Return whether an expression is a text, or made of texts and of what is put into them."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    return isinstance(node, ast.JoinedStr) or _pieces(node) is not None


def _pieces(node: ast.expr) -> list[str | ast.expr] | None:
    """Return what a composed text is made of, in order; None if it is none."""
    if isinstance(node, ast.JoinedStr):
        return [one.value if isinstance(one, ast.FormattedValue) else one for one in node.values]
    if isinstance(node, ast.BinOp) and _is_composed(node.left):
        if isinstance(node.op, ast.Mod):
            return _filled(node.left, r"%(?:\(\w+\))?[sd]", node.right)
        return [node.left, node.right]
    if isinstance(node, ast.BinOp) and _is_composed(node.right):
        return [node.left, node.right]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _of_method(node.func, node)
    return None


def _of_method(method: ast.Attribute, call: ast.Call) -> list[str | ast.expr] | None:
    """Return what a method of a text makes of it, in pieces; None if it is none that makes texts."""
    if not _is_composed(method.value):
        return None
    if method.attr == "format":
        values = [*call.args, *(one.value for one in call.keywords)]
        return _filled(method.value, r"\{\w*\}", *values)
    if method.attr == "replace":
        return [method.value, *call.args[1:]]
    if method.attr == "join" and isinstance(call.args[0], ast.List | ast.Tuple):
        return [piece for one in call.args[0].elts for piece in (one, method.value)]
    return None


def _filled(template: ast.expr, place: str, *values: ast.expr) -> list[str | ast.expr]:
    """Return a template in pieces, with a value at each place, or unknown ones where their order is not said."""
    if not isinstance(template, ast.Constant):
        return [template, *values]
    first, *others = re.split(place, str(template.value))
    given = [*values] if len(values) == len(others) else [ast.Name("_") for _ in others]
    pieces: list[str | ast.expr] = [first]
    for value, text in zip(given, others, strict=True):
        pieces += [value, text]
    return pieces
