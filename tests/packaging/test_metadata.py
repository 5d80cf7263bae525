"""What the metadata and the lock say: every import declared, every range bounded, the lock true to both."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tunewarden

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements"


def project(directory: Path) -> dict[str, Any]:
    """Return what a distribution's pyproject.toml says of it."""
    project: dict[str, Any] = tomllib.loads((directory / "pyproject.toml").read_text("utf-8"))[
        "project"
    ]
    return project


PROJECT = project(ROOT)
VERIFIER = project(ROOT / "packages" / "receipts")
PLUGIN = project(ROOT / "packages" / "vllm")
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"]]
# Ours is pinned, not bounded, and is in this tree, not in the lock: docs/decisions/0020.
(OURS,) = [one for one in DEPENDENCIES if one.name == VERIFIER["name"]]
CORE = [one for one in DEPENDENCIES if one != OURS]
RECEIPTS = [Requirement(line) for line in VERIFIER["dependencies"]]
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in PROJECT["optional-dependencies"].items()
}
# What the plugin runs in brings it.
TORCH = Requirement("torch")
# Installed apart from the lock: docs/decisions/0012.
NOT_LOCKED = {"torch"}
PINNED = re.compile(
    r"^([a-z0-9._-]+)==(\S+)((?: ;[^\\\n]*)?) \\\n((?: {4}--hash=sha256:.*\n)+)", re.MULTILINE
)


def locked(name: str) -> dict[str, set[str]]:
    """Return the versions that a file of the lock pins, by canonical name."""
    found: dict[str, set[str]] = {}
    for pinned in PINNED.finditer((LOCK / name).read_text("utf-8")):
        found.setdefault(pinned[1], set()).add(pinned[2])
    return found


@pytest.mark.parametrize(
    ("file", "requirements"),
    [
        ("core.txt", CORE + RECEIPTS),
        ("local.txt", CORE + RECEIPTS + EXTRAS["local"]),
        ("dev.txt", CORE + RECEIPTS + EXTRAS["dev"]),
    ],
)
def test_the_lock_pins_each_dependency_within_its_range(
    file: str, requirements: list[Requirement]
) -> None:
    versions = locked(file)
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name in NOT_LOCKED:
            assert name not in versions
            continue
        assert versions.get(name), f"{name} is not in {file}: make lock"
        for version in versions[name]:
            assert requirement.specifier.contains(version), f"{name}=={version}: make lock"


@pytest.mark.parametrize("file", sorted(path.name for path in LOCK.glob("*.txt")))
def test_every_line_of_the_lock_has_a_hash_and_names_no_index(file: str) -> None:
    text = (LOCK / file).read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(lines) == sum(1 for _ in PINNED.finditer(text)) > 0
    assert "://" not in text


def test_the_sets_agree_so_that_one_environment_may_hold_them() -> None:
    sets = [locked(file) for file in ("core.txt", "local.txt", "dev.txt", "build.txt")]
    for one in sets:
        for other in sets:
            assert all(one[name] == other[name] for name in one.keys() & other.keys())


@pytest.mark.parametrize("requirement", [*CORE, *RECEIPTS, *EXTRAS["local"]], ids=str)
def test_every_range_is_bounded_on_both_sides(requirement: Requirement) -> None:
    operators = sorted(specifier.operator for specifier in requirement.specifier)
    assert operators == ["<", ">="]


def test_the_distributions_are_of_one_release_and_agree_on_what_they_need() -> None:
    assert VERIFIER["version"] == PLUGIN["version"] == PROJECT["version"] == tunewarden.__version__
    assert str(OURS.specifier) == f"=={VERIFIER['version']}"
    assert f"tunewarden=={PROJECT['version']}" in PLUGIN["dependencies"]
    server = {one.name: one.specifier for one in CORE}
    for one in (*RECEIPTS, *map(Requirement, PLUGIN["dependencies"])):
        assert server.get(one.name, one.specifier) == one.specifier


@pytest.mark.parametrize(
    ("sources", "requirements", "at_least"),
    [
        (ROOT / "src", [*DEPENDENCIES, *EXTRAS["local"], *EXTRAS["otel"], *EXTRAS["sso"]], 20),
        (ROOT / "packages" / "receipts" / "src", RECEIPTS, 2),
        (ROOT / "packages" / "vllm" / "src", [*map(Requirement, PLUGIN["dependencies"]), TORCH], 3),
    ],
    ids=["server", "receipts", "vllm"],
)
def test_every_package_that_a_distribution_imports_is_declared(
    sources: Path, requirements: list[Requirement], at_least: int
) -> None:
    declared = {canonicalize_name(one.name) for one in requirements}
    distributions = packages_distributions()
    imported = {
        module.partition(".")[0]
        for path in sources.rglob("*.py")
        for module in _imported(ast.parse(path.read_text("utf-8")))
    }
    own = {path.name for path in sources.iterdir()}
    # The demo's weights may be absent; serve --demo then says what to install.
    foreign = imported - set(sys.stdlib_module_names) - own - {"tunewarden_demo"}
    assert len(foreign) >= at_least, "the search found next to nothing"
    undeclared = {
        name
        for name in foreign
        if not declared & {canonicalize_name(one) for one in distributions.get(name, [name])}
    }
    assert undeclared == set()


def _imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found
