"""The workflow files for a public forge, which does not run here: what can be checked by reading them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github/workflows"
RELEASE = WORKFLOWS / "release.yml"
FILES = sorted(WORKFLOWS.glob("*.yml"))


def _jobs(text: str) -> dict[str, str]:
    """Return the text of each job by its name."""
    _, *parts = re.split(r"^  (\w+):\n", text.partition("\njobs:\n")[2], flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _targets(text: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z-]+)", text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text("utf-8"))
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", one)] == []


def test_an_action_has_one_version_in_all_workflows() -> None:
    used = {one for path in FILES for one in re.findall(r"uses: (\S+)", path.read_text("utf-8"))}
    names = [one.partition("@")[0] for one in used]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_job_may_more_than_it_needs(path: Path) -> None:
    text = path.read_text("utf-8")
    before = text.partition("\njobs:\n")[0]
    assert re.search(r"^permissions:( \{\}|\n  contents: read)$", before, re.MULTILINE)
    may_write = {
        name: set(re.findall(r"^      ([a-z-]+): write$", job, re.MULTILINE))
        for name, job in _jobs(text).items()
    }
    wanted: dict[str, set[str]] = {name: set() for name in may_write}
    if path == RELEASE:
        wanted |= {
            "attest": {"attestations", "id-token"},
            "publish": {"id-token"},
            "page": {"contents"},
        }
    assert may_write == wanted


def test_a_release_is_built_as_the_page_says() -> None:
    page = (ROOT / "docs/how-to/release.md").read_text("utf-8")
    targets = _targets(RELEASE.read_text("utf-8"))
    assert targets == {"wheel", "sbom"} <= _targets(page)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert [one for one in targets if not re.search(rf"^{one}:", makefile, re.MULTILINE)] == []
    assert "`.github/workflows/release.yml`" in page


def test_each_distribution_is_published_once_what_it_depends_on_first() -> None:
    job = _jobs(RELEASE.read_text("utf-8"))["publish"]
    folders = re.findall(r"packages-dir: (\w+)/", job)
    moved = dict(re.findall(r"mv dist/(\S+)-\*\.whl (\w+)/", job))
    built = {
        re.search(r'^name = "(.+)"$', path.read_text("utf-8"), re.MULTILINE)[1].replace("-", "_")  # type: ignore[index]  # each has a name
        for path in (ROOT / "pyproject.toml", *ROOT.glob("packages/*/pyproject.toml"))
    }
    assert moved.keys() == built
    assert folders == ["receipts", "demo", "server", "vllm"]
    assert sorted(moved.values()) == sorted(folders)
    assert [*moved].index("tunewarden") == len(
        moved
    ) - 1  # its pattern would take the others' files
