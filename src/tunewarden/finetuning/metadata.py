"""Job metadata: client text, encrypted under the key of the job's training file.

Deleting that file erases the key, and with it the metadata (I18).
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from tunewarden.artifacts import sealed_text
from tunewarden.artifacts.keyring import Keyring
from tunewarden.finetuning.jobs import NamedJob


def seal(keyring: Keyring, key_id: str, internal_id: str, metadata: dict[str, str]) -> bytes:
    """Encrypt a job's metadata for its row. Raises KeyErased."""
    return sealed_text.seal(sealed_text.key_of(keyring, key_id), internal_id, json.dumps(metadata))


def opened(keyring: Keyring, found: Sequence[NamedJob]) -> list[NamedJob]:
    """Return the jobs with their metadata decrypted; without it if the training file was deleted."""
    sealed = {one.training_key_id for one in found if one.job.sealed_metadata is not None}
    secrets = sealed_text.keys_of(keyring, sealed)
    shown = []
    for one in found:
        secret = secrets.get(one.training_key_id)
        if one.job.sealed_metadata is not None and secret is not None:
            text = sealed_text.unseal(secret, one.job.internal_id, one.job.sealed_metadata)
            shown.append(replace(one, job=replace(one.job, metadata=json.loads(text))))
        else:
            shown.append(one)
    return shown
