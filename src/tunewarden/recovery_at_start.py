"""Recovery when a server starts (D10): after crashes and restores, before it serves."""

import logging

from tunewarden.app import App, saved_states, scratch_directory
from tunewarden.deletion.recovery import Recovery
from tunewarden.engines import scratch
from tunewarden.errors import Error
from tunewarden.finetuning import older_texts
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden_receipts.key_chain import HandOver

logger = logging.getLogger(__name__)


def recover(app: App) -> HandOver | None:
    """Recover from crashes and restores before serving (D10). The runner resumes deletions.

    Returns the hand-over of the log's key that it completed, if a rotation was interrupted. Raises Error(UNAVAILABLE) if a component cannot be trusted; the message says what to do.
    """
    app.keyring.recover()
    app.blobs.recover()
    completed = app.log_opening.settle_rotation(lambda *log: _settle(app, *log))
    log, signer = app.open_log()
    log.recover()
    _settle(app, log, signer)
    app.fence.sweep()
    app.drafts.sweep()
    saved_states(app).sweep()
    _seal_older_texts(app)
    scratch.sweep(scratch_directory(app.config))
    return completed


def _settle(app: App, log: Log, signer: LogSigner) -> None:
    settled = Recovery(app.database, app.keyring, log, signer, app.log_mark).settle()
    if settled.replayed or settled.without_key:
        logger.warning(
            "restored components were found: %d deletions are replayed from the log, and %d models whose"
            " key is gone are being deleted",
            settled.replayed,
            settled.without_key,
        )


def _seal_older_texts(app: App) -> None:
    """Encrypt texts that an older version stored in plaintext, and leave no copy in the database (I18)."""
    if not app.database.must_be_rewritten():
        return
    try:
        count = older_texts.seal_all(app.database, app.keyring)
        app.database.rewrite()
    except Error as error:
        logger.warning(
            "the database still holds plaintext names of an older version; the next start tries"
            " again: %s",
            error.message,
        )
    else:
        logger.warning("%d names and metadata of an older version were sealed", count)


def recovery(app: App) -> Recovery:
    """Return the check of restored parts (I10)."""
    log, signer = app.open_log()
    return Recovery(app.database, app.keyring, log, signer, app.log_mark)
