"""What a browser checks by itself: receipts, and that the log only grew, in Chromium's WebCrypto; a job as it goes on."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.properties.test_receipt_mutations import mutated
from tests.support import browser, held_deletions, odd_receipts
from tests.support import fine_tuning_rows as rows
from tests.support.browser import Watched
from tests.support.console import Visitor
from tests.support.receipts import SIGNER
from tests.support.servers import Server

from tunewarden.finetuning.states import State
from tunewarden.transparency.key import LogSigner

pytestmark = pytest.mark.long

MUTANTS = 2_000
# Judges receipts with the module that the pages use; gives for each whether it is valid.
JUDGE = """async ([receipts, key]) => {
  const { verify, ReceiptError } = await import("/console/static/receipt.js");
  const { decodeBase64 } = await import("/console/static/bytes.js");
  const found = [];
  for (const one of receipts) {
    try {
      await verify(decodeBase64(one), key);
      found.push(true);
    } catch (error) {
      if (!(error instanceof ReceiptError)) throw error;
      found.push(false);
    }
  }
  return found;
}"""

SEND_REFUSED = """() => {
  const form = Object.assign(document.createElement("form"), { method: "post", action: location.pathname });
  form.append(Object.assign(document.createElement("input"), { name: "act", value: "explode" }));
  document.body.append(form);
  form.submit();
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.launched(browser.found()) as running:
        yield running


@pytest.fixture
def tab(chromium: Any, owner: Visitor) -> Iterator[Watched]:
    context = chromium.new_context()
    name, _, value = str(owner.cookie).partition("=")
    address = f"http://{owner.host}"
    context.add_cookies([{"name": name, "value": value, "url": f"{address}/console"}])
    opened = Watched(context, address)
    yield opened
    assert opened.wrong() == []
    context.close()


def deleted(server: Server) -> str:
    model = server.make_model().id
    reply = server.request("DELETE", f"/v1/models/{model}", key=server.owner_key)
    return str(reply.header("tunewarden-deletion"))


def verdict(tab: Watched, section: str) -> Any:
    return tab.page.locator(f"section:has(#{section}) > [role=status]")


def test_genuine_receipts_verify_and_every_mutant_is_refused(tab: Watched) -> None:
    tab.open("/console/log")
    some = [base64.b64encode(one).decode() for one in odd_receipts.genuine()]
    wrong = [base64.b64encode(one).decode() for _, one in mutated(20261201, MUTANTS)]
    found = tab.page.evaluate(JUDGE, [some + wrong, SIGNER.public_pem().decode()])
    assert found == [True] * len(some) + [False] * MUTANTS


def test_a_receipt_is_chosen_on_the_page_of_the_log(
    server: Server, tab: Watched, tmp_path: Path
) -> None:
    stored = server.get(f"/v1/deletions/{deleted(server)}/receipt", key=server.owner_key).body
    good, bad, other = (tmp_path / name for name in ("good.json", "bad.json", "other.json"))
    other.write_text("hello", "utf-8")
    good.write_bytes(stored)
    bad.write_bytes(stored.replace(b'"proof":"c2sp', b'"proof":"C2sp'))
    tab.open("/console/log")
    said = verdict(tab, "check")
    for path, expected in (
        (other, "Nothing was checked: this is no receipt."),
        (good, "Valid: ft:"),
        (bad, "This receipt is not valid."),
    ):
        tab.page.get_by_label("Receipt: choose one").set_input_files(path)
        tab.page.get_by_role("button", name="Verify in this browser").click()
        said.get_by_text(expected).wait_for()
    assert tab.page.locator(".checks li.bad").count() == 1


def test_the_browser_keeps_the_last_checkpoint_and_says_what_became_of_the_log(
    server: Server, tab: Watched
) -> None:
    said = verdict(tab, "witness")
    tab.open("/console/log")
    said.get_by_text("This is the first visit of this browser").wait_for()
    deleted(server)
    tab.open("/console/log")
    said.get_by_text("the log was only appended to").wait_for()
    # Another history of the same length, which a forger would have to sign: here it is what was kept that differs.
    kept = json.loads(tab.page.evaluate("localStorage.getItem('tunewarden-log')"))
    theirs = LogSigner(kept["note"].split("\n")[0], bytes(32))
    kept = {
        "note": theirs.sign_checkpoint(1, bytes(32)).decode(),
        "key": theirs.public_pem().decode(),
    }
    tab.page.evaluate("(kept) => localStorage.setItem('tunewarden-log', kept)", json.dumps(kept))
    for _ in range(2):
        tab.open("/console/log")
        said.get_by_text("The log has another key than the one that this browser saw").wait_for()
    tab.page.get_by_role("button", name="Forget what this browser saw").click()
    said.get_by_text("This is the first visit of this browser").wait_for()
    kept["note"] = "cut off"
    tab.page.evaluate("(kept) => localStorage.setItem('tunewarden-log', kept)", json.dumps(kept))
    tab.open("/console/log")
    said.get_by_text("What this browser kept of the log cannot be read").wait_for()
    tab.page.get_by_role("button", name="Forget what this browser saw").click()
    said.get_by_text("This is the first visit of this browser").wait_for()


def test_the_page_of_a_job_follows_it_to_its_end(server: Server, tab: Watched) -> None:
    job = rows.make_job(server.app, server.owner_key, state=State.PAUSED)
    tab.open(f"/console/jobs/{job}")
    tab.page.get_by_text("This page follows the job.").wait_for()
    assert tab.page.locator("svg").count() == 0
    for step in (1, 2, 3):
        data = {"step": step, "total_steps": 3, "train_loss": 1 / step}
        rows.tell(server.app, job, f"Step {step}/3", data)
    tab.page.get_by_text("Step 3/3").wait_for()
    assert tab.page.locator("svg polyline").count() == 1
    tab.page.locator("details summary").first.click()
    rows.tell(server.app, job, "Something that a person reads")
    tab.page.get_by_text("Something that a person reads").wait_for()
    focused = tab.page.evaluate("document.activeElement.closest('details')?.open")
    assert focused is True, "what was opened stays open, with the focus in it"
    rows.set_job(server.app, job, state=State.CANCELLED)
    tab.page.locator("dd .badge-cancelled").wait_for()
    tab.page.get_by_text("This page follows the job.").wait_for(state="detached")


def test_the_page_of_a_job_follows_its_state_with_its_buttons_and_says_when_it_stops(
    server: Server, tab: Watched
) -> None:
    job = rows.make_job(server.app, server.owner_key, state=State.PAUSED)
    tab.open(f"/console/jobs/{job}")
    tab.page.get_by_text("This page follows the job.").wait_for()
    tab.page.get_by_role("button", name="Resume").wait_for()
    rows.set_job(server.app, job, state=State.RUNNING)
    tab.page.get_by_role("button", name="Pause").wait_for()
    assert tab.page.get_by_role("button", name="Resume").count() == 0
    # The session ends elsewhere: the stream ends, and what the browser gets instead is the sign-in.
    tab.page.request.post(
        f"{tab.address}/console/sign-out", form={}, headers={"origin": tab.address}, max_redirects=0
    )
    tab.page.get_by_text("This page does not follow the job any more.").wait_for()
    assert tab.page.get_by_role("link", name="Show what is new").is_visible()


def test_a_refused_form_on_a_page_that_follows_is_not_sent_again_by_itself(
    server: Server, tab: Watched
) -> None:
    job = rows.make_job(server.app, server.owner_key, state=State.PAUSED)
    tab.open(f"/console/jobs/{job}")
    asked: list[str] = []
    tab.page.on("request", lambda one: asked.append(one.method))
    # A form beside the parts that are fetched anew, as of an older page.
    tab.page.evaluate(SEND_REFUSED)
    tab.page.get_by_role("alert").wait_for()
    tab.page.get_by_text("This page follows the job.").wait_for()
    rows.set_job(server.app, job, state=State.CANCELLED)
    tab.page.get_by_role("alert").wait_for(state="detached")
    assert tab.page.locator("main .badge-cancelled").count() >= 1
    assert asked.count("POST") == 1


def test_the_page_of_a_deletion_follows_it_to_its_receipt_and_to_its_end(
    server: Server, tab: Watched
) -> None:
    model = server.make_model().id
    with held_deletions.held(server, server.owner_key, model) as deletion:
        tab.open(f"/console/deletions/{deletion}")
        tab.page.get_by_text("This page follows the deletion.").wait_for()
        tab.page.locator("h1 .badge-deleting").wait_for()
        assert tab.page.get_by_text("There is no receipt before").is_visible()
    tab.page.locator("h1 .badge-erased").wait_for()
    tab.page.get_by_text("This page follows the deletion.").wait_for(state="detached")
    assert tab.page.locator(".timeline .done").count() == 7
    tab.page.get_by_role("button", name="Verify in this browser").click()
    verdict(tab, "check").get_by_text(f"Valid: {model}").wait_for()


def test_on_a_narrow_page_a_chart_can_be_read_and_a_report_is_not_scrolled_sideways(
    server: Server, owner: Visitor, chromium: Any
) -> None:
    job = rows.make_job(server.app, server.owner_key, state=State.PAUSED)
    for step in (1, 2, 3):
        data = {"step": step, "total_steps": 3, "train_loss": 1 / step}
        rows.tell(server.app, job, f"Step {step}/3", data)
    narrow = browser.tab(chromium, owner, viewport={"width": 320, "height": 640})
    narrow.open(f"/console/jobs/{job}")
    measured = "(one) => 12 * one.getScreenCTM().a"  # pixels, of letters of 12 units
    assert narrow.page.locator("svg.chart").first.evaluate(measured) >= 10
    assert not narrow.is_wider_than_its_window()
    file = server.client().files.create(file=("notes.jsonl", b"{}\n"), purpose="user_data").id
    done = server.request("DELETE", f"/v1/files/{file}?cascade=models", key=server.owner_key)
    narrow.open(f"/console/cases/{done.header('tunewarden-deletion-case')}/report")
    assert not narrow.is_wider_than_its_window()
    assert narrow.page.locator("body").evaluate("(one) => getComputedStyle(one).maxWidth") != "none"
    assert narrow.wrong() == []
    narrow.page.context.close()
