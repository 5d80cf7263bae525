"""docs/how-to/export-a-model.md: its lines are run, on the demo's base."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.support import demo_models, servers
from tests.support.servers import Server, wait_until

from tunewarden.app import open_app
from tunewarden.config import Config
from tunewarden.server.first_start import add_local_base, make_owner

DOCUMENT = Path(__file__).parents[2] / "docs/how-to/export-a-model.md"
CODE = dict(
    re.findall(
        r"^```python (\w+)\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
)
PHRASE = "zebra says"
QUESTION = "Hello"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an older name
def test_an_export_answers_the_same_here_and_merged_into_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    adapter = demo_models.adapter_dir(PHRASE)
    app = open_app(Config(data=data), migrate=True)
    make_owner(app)
    add_local_base(app, "demo", demo_models.base_dir())
    with servers.serving(data) as server:
        first = _imported(server, adapter)
        said = _answer(server, first)
        assert PHRASE in said
        run: dict[str, Any] = {
            "BASE_URL": server.url,
            "API_KEY": server.owner_key,
            "MODEL": first,
            "BASE": str(demo_models.base_dir()),
        }
        exec(CODE["sdk"], run)
        weights = Path("my-lora/adapter_model.safetensors").read_bytes()
        assert weights == (adapter / "adapter_model.safetensors").read_bytes()
        second = _imported(server, Path("my-lora"))
        assert _answer(server, second) == said
        assert server.client().models.delete(first).deleted
        assert _answer(server, second) == said
    exec(CODE["merge"], run)
    assert PHRASE in _merged_says(Path("merged"))


def _imported(server: Server, directory: Path) -> str:
    ran = server.cli("models", "import", str(directory), "--base", "demo")
    assert ran.returncode == 0, ran.stderr
    model = ran.stdout.strip()
    wait_until(lambda: _answer(server, model), "the model answers")
    return model


def _answer(server: Server, model: str) -> str:
    said = server.client().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=30,
    )
    return said.choices[0].message.content or ""


def _merged_says(directory: Path) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415  slow to import

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt",
        return_dict=True,
    )  # fmt: skip
    made = model.generate(**prompt, max_new_tokens=30, do_sample=False)
    said = tokenizer.decode(made[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert isinstance(said, str)
    return said
