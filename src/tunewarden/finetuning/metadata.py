"""Job metadata: client text, encrypted under the key of the job's training file.

Deleting that file erases the key, and with it the metadata (I18).
"""

from collections.abc import Sequence
from dataclasses import replace

from tunewarden.artifacts import sealed_text
from tunewarden.artifacts.keyring import Keyring
from tunewarden.finetuning.jobs import NamedJob
from tunewarden.registry import metadata


def opened(keyring: Keyring, found: Sequence[NamedJob]) -> list[NamedJob]:
    """Return the jobs with their metadata decrypted; without it if the training file was deleted."""
    sealed = {one.training_key_id for one in found if one.job.sealed_metadata is not None}
    secrets = sealed_text.keys_of(keyring, sealed)
    shown = []
    for one in found:
        secret = secrets.get(one.training_key_id)
        if one.job.sealed_metadata is not None and secret is not None:
            said = metadata.unseal(secret, one.job.internal_id, one.job.sealed_metadata)
            shown.append(replace(one, job=replace(one.job, metadata=said)))
        else:
            shown.append(one)
    return shown
