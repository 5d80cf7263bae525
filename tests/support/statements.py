"""The SQL in the modules of the server, for the rules about it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "tunewarden"
IS_SQL = re.compile(r"\b(?:SELECT|FROM|JOIN|INSERT\s+INTO|UPDATE|DELETE\s+FROM|WHERE)\b")


def texts(tree: ast.Module) -> Iterator[tuple[str, list[ast.expr]]]:
    """Yield every text of a module that is SQL, docstrings aside, with what is put into its `{}`."""
    nodes = list(ast.walk(tree))
    skipped = {node.value for node in nodes if isinstance(node, ast.Expr)}
    skipped |= {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        put: list[ast.expr] = []
        if isinstance(node, ast.JoinedStr):
            put = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if node not in skipped and IS_SQL.search(text):
            yield text, put


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module of the server by its path below the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text("utf-8"))
