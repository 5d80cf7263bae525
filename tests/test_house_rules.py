"""House rules that no linter knows. A list of exceptions may only shrink."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "tunewarden"
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
ASYNC_ROOMS = {"api", "serving", "engine"}
# Words that say nothing, or that would be a second word for a thing (DESIGN, section 2).
WORDS = re.compile(r"(^|_)(manager|utils?|helpers?|common|misc|handle|purge|destroy)(_|$)")
# Names that a library of ours calls.
GIVEN_NAMES = {"handle_exit"}
# The doors at which any exception may be caught (DESIGN, section 11).
BROAD_EXCEPT = {
    "api/server.py",
    "deletion/executor.py",
    "engine/batch.py",
    "engine/doors.py",
    "finetuning/runner.py",
}
# Who may erase: the steps, the sweeps of what never became a model, and the stores themselves.
MAY_ERASE = {
    "deletion/steps.py",
    "deletion/recovery.py",
    "deletion/inventory.py",
    "registry/drafts.py",
    "registry/uploads.py",
    "finetuning/saved_state.py",
    "finetuning/training.py",
    "serving/embedded.py",
    "serving/scratch.py",
    "cli/first_start.py",
}


def sources() -> list[Path]:
    """Every module of the product."""
    return sorted(SOURCE.rglob("*.py"))


def parsed() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the product, with its path below the package."""
    for path in sources():
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES_MAX


def test_no_function_is_too_long_to_read() -> None:
    long = [
        f"{name}: {node.name}"
        for name, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_the_core_is_synchronous() -> None:
    found = {
        name
        for name, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef) and name.split("/")[0] not in ASYNC_ROOMS
    }
    assert found == set()


def test_names_say_what_things_are() -> None:
    found = [
        f"{name}: {node.name}"
        for name, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and node.name not in GIVEN_NAMES
        and WORDS.search(re.sub(r"(?<!^)(?=[A-Z])", "_", node.name).lower())
    ]
    found += [name for name, _ in parsed() if WORDS.search(Path(name).stem)]
    assert found == []


def test_any_exception_is_caught_at_the_outer_boundaries_only() -> None:
    broad = {
        name
        for name, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and isinstance(node.type, ast.Name)
        and node.type.id == "Exception"
    }
    assert broad <= BROAD_EXCEPT


def test_only_those_whose_work_it_is_erase() -> None:
    callers = {
        name
        for name, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and re.fullmatch(r"erase(_many|_files)?", node.func.attr)
        # The stores erase their own files, the engine its own memory.
        and not name.startswith(("artifacts/", "engine/"))
    }
    assert callers <= MAY_ERASE


def test_every_clause_of_the_protocol_is_named_where_it_is_done() -> None:
    protocol = (
        ast.get_docstring(ast.parse((SOURCE / "deletion/protocol.py").read_text("utf-8"))) or ""
    )
    clauses = set(re.findall(r"^(D\d+) ", protocol, re.MULTILINE))
    assert clauses == {f"D{number}" for number in range(1, 11)}
    rooms = "".join(
        (SOURCE / "deletion" / name).read_text("utf-8")
        for name in ("requests.py", "steps.py", "executor.py", "recovery.py")
    )
    assert {clause for clause in clauses if re.search(rf"\b{clause}\b", rooms)} >= clauses - {"D2"}


def test_no_document_or_source_names_a_place_of_one_machine() -> None:
    pattern = re.compile(r"/(work|root|farm)/|/home/\w+")
    files = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *sources(),
    ]
    assert [
        str(file)
        for file in files
        if file != Path(__file__) and pattern.search(file.read_text("utf-8"))
    ] == []
