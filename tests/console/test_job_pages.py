"""Jobs at the console: curves with their table, events as they come, what can be done, and who may do it."""

import http.client
from contextlib import AbstractContextManager, ExitStack

import pytest
from tests.support import event_streams
from tests.support import fine_tuning_rows as rows
from tests.support.console import Visitor
from tests.support.event_streams import next_event
from tests.support.servers import Server, wait_until

from tunewarden.finetuning.states import State
from tunewarden.identity.policy import ProjectRole
from tunewarden.identity.session_rows import SEEN_MICROS

FOLLOWERS = 8  # of an organization, in one worker: see Services.followers


@pytest.fixture
def job(server: Server) -> str:
    """A paused job that has measured something; no runner works on it."""
    made = rows.make_job(server.app, server.owner_key, state=State.PAUSED)
    for step in range(1, 6):
        data = {"step": step, "total_steps": 20, "train_loss": 2.0 / step}
        if step == 4:
            data["valid_loss"] = 0.75
        rows.tell(server.app, made, f"Step {step}/20: training loss", data)
    return made


def following(visitor: Visitor, job: str) -> AbstractContextManager[http.client.HTTPResponse]:
    return event_streams.opened(visitor, f"/console/jobs/{job}/changes")


def test_the_page_of_a_job_has_curves_their_table_events_and_checkpoints(
    server: Server, owner: Visitor, job: str
) -> None:
    checkpoint = rows.make_checkpoint(server.app, server.owner_key, job, 3, {"train_loss": 0.66})
    page = owner.text(f"/console/jobs/{job}")
    assert page.count("<svg") == 1, "nothing was measured of accuracy"
    assert '<polyline class="line series-1"' in page
    assert '<circle class="dot series-2"' in page, "one value is a dot"
    assert (
        '<tr><th scope="row">4</th><td class="figure">0.5</td><td class="figure">0.75</td>' in page
    )
    assert "step 5 of 20" in page
    assert checkpoint.id in page
    assert "Step 5/20" in page
    assert "style=" not in page
    assert job in owner.text("/console/jobs")


def test_a_file_that_is_deleted_is_not_linked_but_its_receipt_is(
    server: Server, owner: Visitor
) -> None:
    job = rows.make_job(server.app, server.owner_key, state=State.SUCCEEDED)
    file = server.get(f"/v1/fine_tuning/jobs/{job}", key=server.owner_key).json["training_file"]
    here, link = f"/console/jobs/{job}", f'href="/console/files/{file}"'
    assert link in owner.text(here)
    with server.app.database.write() as tx:  # what a file has that was really uploaded
        tx.run("UPDATE artifacts SET salt = :salt WHERE salt IS NULL", salt=bytes(32))
    deleted = server.request("DELETE", f"/v1/files/{file}", key=server.owner_key)
    page = owner.text(here)
    assert link not in page
    assert f'{file}</code> <span class="badge badge-deleted">' in page
    assert f'href="/console/deletions/{deleted.header("tunewarden-deletion")}"' in page


def test_long_lists_of_events_and_jobs_are_paged(server: Server, owner: Visitor, job: str) -> None:
    for number in range(25):
        rows.tell(server.app, job, f"Message {number}")
    page = owner.text(f"/console/jobs/{job}")
    assert "Message 24" in page
    assert "Message 4<" not in page
    cursor = page.partition(f"/console/jobs/{job}?after=")[2].partition('"')[0]
    assert "Message 4<" in owner.text(f"/console/jobs/{job}?after={cursor}")


def test_acts_change_a_job_for_who_may(server: Server, owner: Visitor, job: str) -> None:
    path = f"/console/jobs/{job}"
    viewer = Visitor(server, server.make_key("reader"))
    assert "<button name" not in viewer.text(path)
    assert viewer.post(path, {"act": "cancel"}).status == 403
    member = Visitor(server, server.make_key("reader", project_role=ProjectRole.MEMBER))
    page = member.text(path)
    assert 'value="resume"' in page
    opened = page.partition("<details>")[2].partition("</details>")[0]
    assert 'value="cancel"' in opened, "nothing undoes it, so one click does not do it"
    assert page.count('value="cancel"') == 1
    assert owner.post(path, {"act": "explode"}).status == 400
    assert rows.state_of(server.app, job) is State.PAUSED
    assert member.post(path, {"act": "cancel"}).status == 303
    assert rows.state_of(server.app, job).has_ended
    assert owner.post(path, {"act": "pause"}).status == 400, "it has ended"


def test_a_form_from_elsewhere_changes_no_job(server: Server, owner: Visitor, job: str) -> None:
    headers = {"sec-fetch-site": "cross-site"}
    assert owner.post(f"/console/jobs/{job}", {"act": "cancel"}, headers).status == 403
    assert rows.state_of(server.app, job) is State.PAUSED


def test_a_browser_that_follows_a_job_hears_of_each_change_and_of_its_end(
    server: Server, owner: Visitor, job: str
) -> None:
    with following(owner, job) as stream:
        assert stream.getheader("content-type", "").startswith("text/event-stream")
        assert next_event(stream) == "changed", "at once, so that nothing is missed"
        rows.tell(server.app, job, "Something new")
        assert next_event(stream) == "changed"
        rows.set_job(server.app, job, state=State.CANCELLED)
        assert next_event(stream) == "changed"
        assert next_event(stream) == "ended"
        assert next_event(stream) is None


def test_following_ends_with_the_session(server: Server, job: str) -> None:
    """I19: what a page opened does not outlive its key."""
    visitor = Visitor(server, server.make_key("reader"))
    with following(visitor, job) as stream:
        assert next_event(stream) == "changed"
        assert visitor.post("/console/sign-out", {}).status == 303
        rows.tell(server.app, job, "Nobody hears this")
        assert next_event(stream) is None


def test_what_a_page_does_by_itself_keeps_no_session_alive(server: Server, job: str) -> None:
    key = server.make_key("reader")
    visitor, database = Visitor(server, key), server.app.database
    key_id = f"key_{key.split('-')[2]}"

    def last_seen() -> int:
        with database.read() as tx:
            sql = "SELECT last_seen_at FROM sessions WHERE key_id = :key"
            return int(tx.rows(sql, key=key_id)[0][0])

    with following(visitor, job) as stream:
        assert next_event(stream) == "changed"
        with database.write() as tx:
            sql = "UPDATE sessions SET last_seen_at = last_seen_at - :by WHERE key_id = :key"
            tx.run(sql, by=2 * SEEN_MICROS, key=key_id)
        before = last_seen()
        rows.tell(server.app, job, "Something new")
        assert next_event(stream) == "changed"
    # As the page's module asks for what is new.
    assert visitor.get(f"/console/jobs/{job}", {"sec-fetch-mode": "cors"}).status == 200
    assert last_seen() == before
    for used in ({"sec-fetch-mode": "navigate"}, {}):
        assert visitor.get(f"/console/jobs/{job}", used).status == 200
        assert last_seen() > before


def test_a_job_of_another_organization_is_not_followed(server: Server, job: str) -> None:
    other = Visitor(server, server.make_key("owner", organization="others"))
    with following(other, job) as stream:
        assert stream.status == 404


def test_so_many_pages_follow_at_once_and_then_a_place_is_free_again(
    server: Server, owner: Visitor, job: str
) -> None:
    """I20: each costs the worker a look a second, so an organization has so many of them."""
    with ExitStack() as opened:
        # More than both workers have places.
        found = [
            opened.enter_context(following(owner, job)).status for _ in range(2 * FOLLOWERS + 1)
        ]
        assert set(found) == {200, 503}

    def is_free() -> bool:
        with following(owner, job) as stream:
            return stream.status == 200

    wait_until(is_free, "a place is free")
