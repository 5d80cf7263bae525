"""The README's program runs as it stands, on another address and model: an answer, then the deletion."""

import re
from pathlib import Path

import openai
import pytest
from tests.support import servers
from tests.support.servers import WithoutTorch

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_its_program_gets_an_answer_and_deletes_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code: str
    [code] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    [named, _] = re.findall(r'"(ft:[^"]+)"', code)
    with servers.serving(tmp_path / "data", local_base=True, kind=WithoutTorch) as server:
        model = server.make_model().id
        here = {
            "http://127.0.0.1:8800/v1": server.url,
            "sk-tw-…": server.owner_key,
            named: model,
        }
        for written, instead in here.items():
            assert written in code
            code = code.replace(written, instead)
        exec(code, {})
        assert capsys.readouterr().out.strip()
        with pytest.raises(openai.NotFoundError):
            server.client().models.retrieve(model)
