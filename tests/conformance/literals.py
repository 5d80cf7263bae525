"""What the suite's tests send, read from their source."""

import ast
from pathlib import Path
from typing import Any


def functions(path: Path) -> set[str]:
    """The tests of a file, as `Class::name`."""
    return {
        f"{group.name}::{test.name}"
        for group in ast.parse(path.read_text("utf-8")).body
        if isinstance(group, ast.ClassDef)
        for test in group.body
        if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef)
        and test.name.startswith("test_")
    }


def arguments(path: Path, test: str, call: str) -> dict[str, Any]:
    """The keyword arguments, all of them literals, of the call `….<call>(…)` in a test."""
    (found,) = [
        node
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef) and function.name == test
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == call
    ]
    return {str(one.arg): ast.literal_eval(one.value) for one in found.keywords}
