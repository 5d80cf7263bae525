"""House rules that no linter knows. A list of exceptions may only shrink."""

import ast
import functools
import io
import itertools
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import groups

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests"
SOURCE = ROOT / "src" / "tunewarden"
# The distributions beside the server: the verifier of its receipts, and the plugin for vLLM.
PACKAGES = (
    ROOT / "packages" / "receipts" / "src" / "tunewarden_receipts",
    ROOT / "packages" / "vllm" / "src" / "tunewarden_vllm",
)
FILE_LINES_MAX = 400
TEST_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
PROSE_COLUMNS_MAX = 120
GENERATED = {ROOT / "docs" / "performance.md", ROOT / "docs" / "evidence.md"}
ASYNC_ROOMS = {
    "api",
    "console",
    "gateway",
    "serving",
    "engines",
    "embedded_engine",
    "server",
    "tunewarden_vllm",
}
# Words that say nothing, or that would be a second word for a thing (DESIGN, section 2).
WORDS = re.compile(r"(^|_)(manager|utils?|helpers?|common|misc|handle|purge|destroy)(_|$)")
# Private phrases for which the field has a term: plaintext, concurrently, in the meantime, restart, identify, return.
PHRASES = re.compile(
    r"\b(in the plain|at once with others|meanwhile|starte?d? anew|whoever|one of ours|as it may have|take that"
    r"|tell whether|what came|nobody works on|goes? on all the same|flat memory|under way)\b",
    re.IGNORECASE,
)
# What turns a check off, and the same with a reason behind it.
MARK = re.compile(r"#\s*(noqa\b|type:\s*ignore\b|pragma: no)")
REASONED = re.compile(r"#\s*(noqa: [A-Z0-9, ]*[A-Z0-9](  | - )|type: ignore\[[a-z, -]+\]  # )\S")
# Names that a library of ours calls.
GIVEN_NAMES = {"handle_error", "handle_exit"}
# Of the `local` extra; and what starts the embedded engine or a server of several processes.
HEAVY = {"huggingface_hub", "jinja2", "peft", "tokenizers", "torch", "transformers"}
STARTS_SERVERS = {
    "tests.chaos",
    "tests.cli",
    "tests.support.demo_models",
    "tests.support.embedded_engine",
    "tests.support.engines",
}
SERVER_FIXTURES = {"server", "engine_server"}
# The boundaries at which any exception may be caught (DESIGN, section 11).
BROAD_EXCEPT = {
    "api/flushing.py",
    "api/server.py",
    "console/site.py",
    "deletion/cases/case_runner.py",
    "deletion/executor.py",
    "deletion/group_commit.py",
    "embedded_engine/step_loop.py",
    "embedded_engine/http.py",
    "finetuning/runner.py",
    "gateway/exchange.py",
    "server/drain.py",
    "webhooks/sender.py",  # in a thread: a bug is logged, and the event is sent again later
    "tunewarden_vllm/adapters.py",  # vLLM's workers report every failure as Exception
    "finetuning/trainer_process.py",  # in a thread, whose mistakes Python prints with their values
}
# Both sides of the engine protocol: what they agree on is written in engine_protocol/ alone.
ENGINE_SIDES = ("gateway/", "engines/", "embedded_engine/", "tunewarden_vllm/")
# Who may erase: the steps, the sweeps of what never became a model, and the stores themselves.
MAY_ERASE = {
    "deletion/steps.py",
    "deletion/recovery.py",
    "deletion/inventory.py",
    "registry/drafts.py",
    "registry/uploads.py",
    "finetuning/saved_state.py",
    "finetuning/training.py",
    "engines/loading.py",
    "engines/scratch.py",
    "server/first_start.py",
}


def sources() -> list[Path]:
    """Every module of the product: of the server and of the distributions beside it."""
    return [path for where in (SOURCE, *PACKAGES) for path in sorted(where.rglob("*.py"))]


def documents() -> list[Path]:
    return sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - GENERATED)


def _name(path: Path) -> str:
    """The path of a module below the server's package; of another's, with the package's name."""
    below = next((one.parent for one in PACKAGES if path.is_relative_to(one)), SOURCE)
    return path.relative_to(below).as_posix()


@functools.cache
def parsed() -> tuple[tuple[str, ast.Module], ...]:
    """Every module of the product, with its name."""
    return tuple((_name(path), ast.parse(path.read_text("utf-8"))) for path in sources())


@functools.cache
def nodes() -> tuple[tuple[str, ast.AST], ...]:
    """Every node of every module of the product, with the module's name: to walk them takes seconds."""
    return tuple((name, node) for name, tree in parsed() for node in ast.walk(tree))


def _quick_files() -> list[Path]:
    return [path for path in sorted(TESTS.rglob("test_*.py")) if groups.has("quick", path)]


def _reached(path: Path) -> Iterator[str]:
    """Every module that importing a test file imports, those of its functions too, through tests and product."""
    todo, seen = [path], {path}
    while todo:
        for name in _imports(todo.pop()):
            yield name
            found = _file_of(name)
            if found is not None and found not in seen:
                seen.add(found)
                todo.append(found)


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    # The product imports late what not every command needs.
    is_ours = any(path.is_relative_to(one) for one in (SOURCE, *PACKAGES))
    nodes = tree.body if is_ours else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
    return frozenset(found)


@functools.cache
def _file_of(module: str) -> Path | None:
    """The source of a module of ours; None for a library's and for a name that is no module."""
    below = Path(*module.split("."))
    places = [one / below for one in (ROOT, SOURCE.parent, *(two.parent for two in PACKAGES))]
    files = (file for place in places for file in (place.with_suffix(".py"), place / "__init__.py"))
    return next((file for file in files if file.is_file()), None)


@pytest.mark.parametrize("path", sources(), ids=_name)
def test_no_file_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_prose_is_too_long_to_read(path: Path) -> None:
    is_code, long = False, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        is_code ^= line.startswith("```")
        # A row of a table and a line of code cannot be wrapped.
        if len(line) > PROSE_COLUMNS_MAX and not is_code and not line.startswith("|"):
            long.append(number)
    assert not long, f"lines of more than {PROSE_COLUMNS_MAX} columns: {long}"


def test_no_test_file_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in TESTS.rglob("*.py")}
    assert {path.name for path, lines in lengths.items() if lines > TEST_LINES_MAX} == set()


def test_no_function_is_too_long_to_read() -> None:
    long = [
        f"{name}: {node.name}"
        for name, node in nodes()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_only_open_app_names_drivers() -> None:
    """Fields and signatures of the composition root are typed by ports."""
    tree = ast.parse((SOURCE / "app.py").read_text("utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in _protected_modules()
        for alias in node.names
    }
    assert len(imported) >= 5
    named = {
        (getattr(outer, "name", ""), node.id)
        for outer in tree.body
        for node in ast.walk(outer)
        if isinstance(node, ast.Name) and node.id in imported
    }
    assert {where for where, _ in named} == {"open_app"}
    assert {driver for _, driver in named} == imported


def _protected_modules() -> set[str]:
    """The drivers, by import-linter's contract."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    [contract] = [one for one in contracts if one["type"] == "protected"]
    return set(contract["protected_modules"])


def test_the_core_is_synchronous() -> None:
    found = {
        name
        for name, node in nodes()
        if isinstance(node, ast.AsyncFunctionDef) and name.split("/")[0] not in ASYNC_ROOMS
    }
    assert found == set()


def test_names_say_what_things_are() -> None:
    found = [
        f"{name}: {node.name}"
        for name, node in nodes()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and node.name not in GIVEN_NAMES
        and WORDS.search(re.sub(r"(?<!^)(?=[A-Z])", "_", node.name).lower())
    ]
    found += [name for name, _ in parsed() if WORDS.search(Path(name).stem)]
    assert found == []


def test_prose_uses_the_terms_of_the_field() -> None:
    """Private phrases do not come back (docs/reference/words.md)."""
    found = [
        f"{_name(path)}:{number}: {match[0]}"
        for path in sources()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (match := PHRASES.search(line))
    ]
    assert found == []


def test_any_exception_is_caught_at_the_outer_boundaries_only() -> None:
    broad = {
        name
        for name, node in nodes()
        if isinstance(node, ast.ExceptHandler)
        and isinstance(node.type, ast.Name)
        and node.type.id == "Exception"
    }
    assert broad <= BROAD_EXCEPT


def _protocol_literals(tree: ast.Module) -> list[str]:
    """Paths, codes and the header of the engine protocol that stand in a module as text; docstrings aside."""
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [
        node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node not in docstrings
        if isinstance(node.value, str | bytes)
    ]
    # An operator's URL ends with /v1 too, so that may stand inside of a sentence.
    places = re.compile(
        rf"^{paths.OPENAI}(/|$)|/engine(/|$)|{paths.COMPLETIONS}|{paths.CHAT_COMPLETIONS}"
        rf"|{paths.HEALTH}\b|{paths.ASKED_BY.decode()}"
    )
    return [text for text in texts if places.search(text) or text in set(Code)]


def test_what_gateway_and_engine_agree_on_is_written_once() -> None:
    found = {
        name: literals
        for name, tree in parsed()
        if name.startswith(ENGINE_SIDES) and (literals := _protocol_literals(tree))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ('ask("POST", "/engine/evictions")', True),
        ('ask(f"{prefix}/engine/adapters/{name}")', True),
        ('prefix = "/engine"', True),
        ('path.removeprefix("/v1")', True),
        ('routes = {"/v1/embeddings": False}', True),
        ('header = b"tunewarden-asked-by: %b"', True),
        ('refuse(code="model_deleted")', True),
        ('"""Body of POST /engine/bases."""', False),
        ('refuse("A URL looks like http://127.0.0.1:8000/v1, without a query.")', False),
        ('refuse(code="engine_busy")', False),
    ],
)
def test_control_the_rule_sees_what_is_written_twice(source: str, is_found: bool) -> None:
    assert bool(_protocol_literals(ast.parse(source))) is is_found


def test_the_engine_protocol_needs_msgspec_alone() -> None:
    needed = {
        name
        for path in (SOURCE / "engine_protocol").glob("*.py")
        for name in _imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names
    }
    assert {name for name in needed if not name.startswith("tunewarden.engine_protocol")} <= {
        "msgspec",
        "msgspec.Meta",
    }


def test_operations_authorize_and_handlers_do_not() -> None:
    callers = {
        name
        for name, node in nodes()
        if isinstance(node, ast.Name | ast.Attribute)
        and getattr(node, "id", getattr(node, "attr", "")) == "authorize"
    }
    assert callers
    assert not {name for name in callers if name.startswith(("api/", "gateway/", "cli/"))}


def test_only_those_whose_work_it_is_erase() -> None:
    callers = {
        name
        for name, node in nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and re.fullmatch(r"erase(_many|_files)?", node.func.attr)
        # The stores erase their own files, the engine its own memory.
        and not name.startswith(("artifacts/", "embedded_engine/"))
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


def _texts() -> list[Path]:
    documents = [ROOT.glob(pattern) for pattern in ("*.md", "docs/**/*.md", "packages/*/*.md")]
    return [*itertools.chain(*documents), *sources()]


def test_every_decision_has_a_number_of_its_own_and_each_that_is_named_is_there() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")]
    assert [one for one, count in Counter(numbers).items() if count > 1] == []
    for path in _texts():
        named = re.findall(r"decisions/([0-9]{4})", path.read_text("utf-8"))
        assert set(named) <= set(numbers), path


def test_every_migration_has_a_number_of_its_own() -> None:
    numbers = [path.name[:4] for path in (SOURCE / "db" / "migrations").glob("*.sql")]
    assert sorted(numbers) == [f"{n:04}" for n in range(1, len(numbers) + 1)]


def test_no_document_or_source_names_a_place_of_one_machine() -> None:
    pattern = re.compile(r"/(work|root|farm)/|/home/\w+")
    assert [
        str(file)
        for file in _texts()
        if file != Path(__file__) and pattern.search(file.read_text("utf-8"))
    ] == []


@pytest.mark.parametrize("path", _quick_files(), ids=lambda path: str(path.relative_to(TESTS)))
def test_quick_tests_load_no_torch_and_start_no_server(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    parameters = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assert not parameters & SERVER_FIXTURES
    assert not {name for name in _reached(path) if name.split(".")[0] in HEAVY}
    assert not {name for name in _imports(path) if ".".join(name.split(".")[:2]) in STARTS_SERVERS}
    assert not {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and re.fullmatch(r"(servers\.)?(serving|Server)", ast.unparse(node.func))
    }


def test_every_test_is_in_one_group_that_is_run() -> None:
    for path in sorted(TESTS.rglob("test_*.py")):
        assert sum(groups.has(one, path) for one in ("test", *groups.OF_THEIR_OWN)) == 1, path
    run = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    stages = {line.removeprefix("stage ") for line in run}
    assert {"make test || again test", "make batteries || again batteries"} <= stages


def test_every_file_that_a_group_names_is_there() -> None:
    named = {
        *groups.BATTERIES,
        *groups.QUICK,
        *groups.NEED_ENGINE,
        *groups.NEED_SERVERS,
        *groups.FIRST,
    }
    assert [name for name in sorted(named) if not (TESTS / name).exists()] == []


def test_the_files_that_run_together_are_those_that_share_the_engines_server() -> None:
    fixture = re.compile(r"\bengine_server: Server\b")
    found = [
        path.relative_to(TESTS).as_posix()
        for path in sorted(TESTS.rglob("test_*.py"))
        if fixture.search(path.read_text("utf-8"))
    ]
    assert found == list(groups.ENGINE_SERVER)


def test_the_shared_fixtures_load_nothing_heavy() -> None:
    loaded = "import sys, tests.conftest; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    )
    ours = {"tests", "tests.conftest", "tests.groups"}
    names = set(ran.stdout.split())
    assert {name for name in names if name.split(".")[0] == "tests"} <= ours
    assert not names & (HEAVY | {"fastapi", "hypothesis", "numpy", "openai", "safetensors"})


def unreasoned(text: str) -> list[str]:
    """Return the comments that turn a check off and do not say why."""
    comments = [
        one.string
        for one in tokenize.generate_tokens(io.StringIO(text).readline)
        if one.type == tokenize.COMMENT
    ]
    return [one for one in comments if MARK.search(one) and not REASONED.search(one)]


def test_a_check_is_turned_off_for_a_reason_that_stands_beside_it() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): marks
        for folder in ("src", "tests", "packages", "benchmarks", "requirements")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (marks := unreasoned(path.read_text("utf-8")))
    }
    assert found == {}


def test_control_a_mark_without_a_reason_is_seen() -> None:
    without = ["# noqa: S101", "# noqa", "# type: ignore[misc]", "# type: ignore", "# noqa: A, B"]
    for mark in without:
        assert unreasoned(f"x = 1  {mark}\n") == [mark]
    for mark in ("# noqa: S101  it is", "# noqa: A, B - it is", "# type: ignore[a-b, c]  # it is"):
        assert unreasoned(f"x = 1  {mark}\ny = '# noqa'\n") == []
