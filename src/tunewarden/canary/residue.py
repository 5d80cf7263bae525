"""Looks for what is left of a deleted model: in its blobs, the keyring, the engines, the scratch directory, the log."""

from collections.abc import Iterator
from dataclasses import dataclass

from tunewarden.app import App, inventory, scratch_directory
from tunewarden.canary.requests import COMPLETIONS, MODELS, Requests
from tunewarden.deletion import records
from tunewarden.deletion.records import Deletion
from tunewarden.registry.models import Model
from tunewarden_receipts.receipt import ReceiptError

GONE = 404
# Each over a connection of its own, so that most workers get one.
REQUESTS_A_WORKER = 2


@dataclass(frozen=True, slots=True)
class Residue:
    """Searches the places of one installation. Nothing is changed."""

    app: App
    requests: Requests

    def after_answer(self, model: Model, ask: dict[str, object]) -> Iterator[str]:
        """Yield what must be gone once the DELETE was answered. Raises Error(UNAVAILABLE) if it cannot be seen."""
        app = self.app
        for _ in range(REQUESTS_A_WORKER * app.config.workers):
            if (status := self.requests.status("POST", COMPLETIONS, ask)[0]) != GONE:
                yield f"requests: a completion of the deleted model was answered {status}"
        if (status := self.requests.status("GET", f"{MODELS}/{model.id}")[0]) != GONE:
            yield f"requests: the deleted model was answered {status}"
        if app.keyring.contains(model.key_id):
            yield "keyring: it has the key"
        if model.internal_id in inventory(app).engine_models():
            yield "engines: one has the weights"
        if any(scratch_directory(app.config).glob(f"{model.internal_id}.*")):
            yield "scratch: plain weights are left"

    def after_erasure(self, model: Model, deletion: Deletion) -> Iterator[str]:
        """Yield what must be gone once the blobs were erased (D9), and whether the receipt does not verify."""
        app = self.app
        if left := app.blobs.names(f"{model.internal_id}/"):
            yield f"blobs: {len(left)} are left"
        if records.is_live(app.database, model.internal_id):
            yield "database: a row has the model as alive"
        try:
            app.open_log()[1].chain.verified(records.receipt_of(deletion))
        except ReceiptError as error:
            yield f"log: the receipt does not verify: {error.reason}"
