"""What a start refuses of the log."""

from pathlib import Path

import pytest
from tests.support import servers
from tests.support.receipts import envelopes

from tunewarden.errors import Error
from tunewarden.recovery_at_start import recover


def test_an_entry_that_another_key_signed_is_refused_by_its_number(tmp_path: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    app.open_log()[0].append_proven([(envelopes()[0], 0)])
    with pytest.raises(Error, match=r"^Entry 0 of the deletion log .* another key") as refused:
        recover(app)
    assert refused.value.code == "receipt_invalid"
