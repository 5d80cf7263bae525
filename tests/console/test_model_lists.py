"""The list of models: pages, filters in the address, an id that leads to its model, and a bound on what one page reads."""

import html
import re

import pytest
from tests.api.test_use_in_flight import streaming
from tests.support.console import Visitor
from tests.support.servers import LOCAL_BASE, Server, wait_until

from tunewarden.console.lists import PAGE_ROWS
from tunewarden.identity import keys
from tunewarden.registry import artifacts, model_pages
from tunewarden.registry.artifacts import State
from tunewarden.registry.model_pages import Chosen, ModelPage

MODEL = re.compile(r'<th scope="row"[^>]*><a href="/console/models/([^"]+)">')
OLDER = re.compile(r'<a href="([^"]+)" rel="next">')


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return server.make_key("owner", organization="listed")


@pytest.fixture(scope="module")
def ids(server: Server, key: str) -> list[str]:
    """Models of an organization of its own, oldest first: each third is called `third`."""
    return [
        server.make_model(key=key, suffix="third" if n % 3 == 0 else f"n{n}").id
        for n in range(PAGE_ROWS + 5)
    ]


def _walk(visitor: Visitor, path: str) -> list[list[str]]:
    """Return the ids on each page, from this one on."""
    pages = []
    older: str | None = path
    while older:
        page = visitor.text(older)
        pages.append(MODEL.findall(page))
        found = OLDER.search(page)
        older = html.unescape(found[1]) if found else None
    return pages


def test_the_newest_are_first_and_every_model_is_on_one_page(
    server: Server, key: str, ids: list[str]
) -> None:
    pages = _walk(Visitor(server, key), "/console/models")
    assert [len(page) for page in pages] == [PAGE_ROWS, 5]
    assert [one for page in pages for one in page] == ids[::-1]


def test_filters_stay_in_the_address_of_the_next_page(
    server: Server, key: str, ids: list[str]
) -> None:
    visitor = Visitor(server, key)
    base = f"/console/models?base={LOCAL_BASE}&state=active"
    assert len(_walk(visitor, base)) == 2
    assert f"base={LOCAL_BASE}&amp;state=active&amp;after=ft:" in visitor.text(base).replace(
        "%3A", ":"
    )
    thirds = _walk(visitor, "/console/models?name=thi")
    assert thirds == [[one for one in ids[::-1] if ":third:" in one]]
    for nothing in ("base=none", "state=archived", "name=Third"):
        page = visitor.text(f"/console/models?{nothing}")
        assert MODEL.findall(page) == []
        assert "No model is like that." in page


def test_an_id_in_the_filter_leads_to_its_model(server: Server, key: str, ids: list[str]) -> None:
    reply = Visitor(server, key).get(f"/console/models?name={ids[0]}")
    assert reply.header("location") == f"/console/models/{ids[0]}"


def test_a_model_that_is_answering_now_is_listed_as_used_now(server: Server) -> None:
    """As the API says of it: who chooses what to delete must not read "never"."""
    model = server.make_model().id
    wait_until(
        lambda: server.post("/v1/completions", {"model": model, "prompt": "Hello"}).status == 200,
        "the engine",
    )
    busy, idle = server.make_model().id, server.make_model().id
    owner = Visitor(server, server.owner_key)
    with streaming(server, busy):
        page = owner.text("/console/models")
        asked = f"/console/delete?id={busy}&id={idle}"
        before_deleting = owner.text(asked)
    used = dict(re.findall(r'aria-label="Select (\S+)">.*?"Last used">(.*?)</td>', page, re.DOTALL))
    assert (used[busy], used[idle]) == ("now", "never")
    told = re.findall(r'"Last used">(.*?)</td>', before_deleting)
    assert ["never" in one for one in told] == [False, True]


def test_a_page_reads_a_bounded_number_of_models_and_says_where_to_go_on(
    server: Server, key: str, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pages, "LOOKED_AT_MAX", 4)
    monkeypatch.setattr(model_pages, "FEW_MAX", 2)
    app = server.app
    caller = keys.authenticate(app.database, key, "req_test")
    found: list[str] = []
    after, reads = None, 0
    while True:
        page = model_pages.page(app.database, caller, Chosen(suffix="third"), after=after, limit=9)
        assert len(page.models) <= 2
        found += [one.model.id for one in page.models]
        after, reads = page.looked_to, reads + 1
        if after is None:
            break
    assert found == [one for one in ids[::-1] if ":third:" in one]
    assert reads == -(-len(ids) // 4)


@pytest.mark.parametrize("state", [None, State.ACTIVE])
def test_what_few_models_have_is_found_at_once_however_many_are_newer(
    server: Server,
    key: str,
    ids: list[str],
    monkeypatch: pytest.MonkeyPatch,
    state: State | None,
) -> None:
    monkeypatch.setattr(model_pages, "LOOKED_AT_MAX", 4)
    monkeypatch.setattr(model_pages, "FEW_MAX", 5)
    caller = keys.authenticate(server.app.database, key, "req_test")

    def page(base: str | None, suffix: str, after: str | None = None) -> ModelPage:
        chosen = Chosen(base=base, suffix=suffix, state=state)
        return model_pages.page(server.app.database, caller, chosen, after=after, limit=9)

    for base in (None, LOCAL_BASE):
        few = page(base, "n2")
        assert [one.model.suffix for one in few.models] == ["n23", "n22", "n20", "n2"]
        older = page(base, "n2", few.models[1].model.id)
        assert [one.model.suffix for one in older.models] == ["n20", "n2"]
        assert (few.looked_to, older.looked_to) == (None, None)
        # "n10" and its like begin so too: these are no longer few.
        assert page(base, "n1").looked_to is not None


def test_no_index_has_the_name_of_a_model_that_was_deleted(server: Server, key: str) -> None:
    """Only its id has it, which is a tombstone: neither the row of the model, nor what indexes it by its name."""
    model = server.make_model(key=key, suffix="gone-by-now")
    named = "SELECT COUNT(*) FROM models WHERE suffix = 'gone-by-now'"
    listed = f"{named} AND listed_in IS NOT NULL"
    with server.app.database.read() as tx:
        assert (tx.row(named), tx.row(listed)) == ((1,), (1,))
    assert server.request("DELETE", f"/v1/models/{model.id}", key=key).status == 200
    with server.app.database.read() as tx:
        assert (tx.row(named), tx.row(listed)) == ((0,), (0,))
        assert artifacts.by_n(tx, model.n)[1].id == model.id


def test_a_foreign_cursor_is_refused_like_an_unknown_one(
    server: Server, key: str, ids: list[str]
) -> None:
    visitor = Visitor(server, server.make_key("owner", organization="unlisted"))
    foreign = visitor.get(f"/console/models?after={ids[0]}")
    unknown = visitor.get("/console/models?after=ft:nobody")
    assert foreign.status == unknown.status == 400
    assert foreign.body.replace(ids[0].encode(), b"") == unknown.body.replace(b"ft:nobody", b"")
