"""Which error codes the source gives, and with which statuses: read from its syntax, so that none is forgotten."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tunewarden.deletion import blockers, plan
from tunewarden.engine_protocol.codes import Code
from tunewarden.engines import upstream
from tunewarden.errors import Kind
from tunewarden.gateway import rate_limiting
from tunewarden.problems import WIRE
from tunewarden.registry.criteria import ReasonCode

SOURCE = Path(__file__).parents[3] / "src/tunewarden"
# Their errors end commands, which have exit statuses in place of codes.
NOT_OF_THE_API = ("canary/", "cli/", "demo/", "migration/")
JOB = "job"  # what ends a fine-tuning job, in its `error`
# Calls that take a code as a positional argument: which one, and what it comes with.
TAKES = {
    "invalid": (2, "400"),
    "_invalid": (2, "400"),
    "Failure": (0, JOB),
    "InvalidDataset": (0, JOB),
    "JobFailed": (0, JOB),
}
# Codes that the syntax does not show, by their place: what they may be, and what they come with; none
# where a place passes on what another one gave.
HIDDEN: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {
    ("api/refused_requests.py", "error.code"): ((), ""),
    ("deletion/blockers.py", "code"): (
        tuple(code for code, _ in blockers.LIFTED_BY.values()),
        "409",
    ),
    ("deletion/bulk/choosing.py", "why.code"): (
        (ReasonCode.TOO_YOUNG, ReasonCode.IN_USE, ReasonCode.KEEP_LATEST, ReasonCode.ARCHIVED),
        "409",
    ),
    ("deletion/bulk/verdicts.py", "refusal.code"): ((), ""),
    ("deletion/plan.py", "BASE_REFUSED"): ((plan.BASE_REFUSED,), "403"),
    ("embedded_engine/fields.py", "f'{kind}_above_max_value'"): (
        ("integer_above_max_value", "decimal_above_max_value"),
        "400",
    ),
    ("embedded_engine/fields.py", "f'{kind}_below_min_value'"): (
        ("integer_below_min_value", "decimal_below_min_value"),
        "400",
    ),
    ("embedded_engine/http.py", "None"): ((), ""),
    ("embedded_engine/responses/requests.py", "error.code"): ((), ""),
    ("engines/embedded_control.py", "problem.code"): ((), ""),
    ("engines/loading.py", "code"): ((), ""),
    ("engines/upstream.py", "UNAVAILABLE"): ((upstream.UNAVAILABLE,), "503"),
    ("finetuning/creation.py", "code"): ((), ""),
    ("finetuning/datasets.py", "f'invalid_{file}_file'"): (
        ("invalid_training_file", "invalid_validation_file"),
        JOB,
    ),
    ("finetuning/endings.py", "failure.code or 'storage_failed'"): (("storage_failed",), JOB),
    ("finetuning/runner.py", "error.code or 'storage_failed'"): (("storage_failed",), JOB),
    ("finetuning/runner.py", "invalid.code"): ((), ""),
    ("finetuning/training.py", "failed.code"): ((), ""),
    ("finetuning/training.py", "message.code"): ((), ""),
    ("finetuning/transitions.py", "code"): ((), ""),
    ("gateway/rate_limiting.py", "CODE"): ((rate_limiting.CODE,), "429"),
    ("invalid_values.py", "code"): ((), ""),
    ("registry/imports.py", "refused.code"): ((), ""),
    ("registry/quota.py", "f'{what}_quota_exceeded'"): (
        ("files_quota_exceeded", "models_quota_exceeded"),
        "429",
    ),
    ("trainer/examples.py", "f'invalid_{file}_file'"): ((), ""),
}
# An engine says them to the gateway, which loads and tries again, or answers `engine_unavailable`.
BETWEEN_ENGINE_AND_GATEWAY = {Code.ADAPTER_NOT_LOADED, Code.BASE_NOT_LOADED, Code.NO_LEASE}


@cache
def statuses() -> dict[str, str]:
    """Return what each code of the API comes with: its statuses, and `job`."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for codes, status in HIDDEN.values():
        for text in codes:
            found[str(text)].add(status)
    for _, call, code in _calls():
        for text in _texts(code):
            found[text].add(_status(call))
    shown = sorted(found.keys() - BETWEEN_ENGINE_AND_GATEWAY)
    return {code: ", ".join(sorted(found[code])) for code in shown}


def hidden() -> set[tuple[str, str]]:
    """Return the places with codes that the syntax does not show: HIDDEN must say what they are."""
    return {(file, ast.unparse(code)) for file, _, code in _calls() if not _texts(code)}


def _calls() -> Iterator[tuple[str, ast.Call, ast.expr]]:
    """Yield each call that gives a code: its file, the call, and the code."""
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        if not file.startswith(NOT_OF_THE_API):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and (code := _code(node)) is not None:
                    yield file, node, code


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)


def _code(call: ast.Call) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == "code":
            return keyword.value
    at, _ = TAKES.get(_name(call), (len(call.args), ""))
    return call.args[at] if at < len(call.args) else None


def _status(call: ast.Call) -> str:
    if _name(call) in TAKES:
        return TAKES[_name(call)][1]
    [kind] = [
        node.attr
        for node in ast.walk(call)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Kind"
    ]
    return str(WIRE[Kind[kind]][0])


def _texts(code: ast.expr) -> list[str]:
    """Return the codes that an expression shows: texts, alternatives, members of the engine protocol's enum."""
    if isinstance(code, ast.Constant) and isinstance(code.value, str):
        return [code.value]
    if isinstance(code, ast.Attribute) and ast.unparse(code.value) == "Code":
        return [Code[code.attr].value]
    if isinstance(code, ast.IfExp):
        return _texts(code.body) + _texts(code.orelse)
    return []
