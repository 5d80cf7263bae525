"""What a base's directory tells about it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunewarden.artifacts.base_facts import BaseFacts, base_facts

PLAIN = ("completions", "fine_tuning")
CHATS = ("completions", "chat", "responses", "fine_tuning")


def test_a_directory_without_a_config_tells_nothing(tmp_path: Path) -> None:
    assert base_facts(str(tmp_path / "missing")) is None
    (tmp_path / "config.json").write_text("[", "utf-8")
    assert base_facts(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 8192}, "max_position_embeddings": 1}, 8192),
        ({"max_position_embeddings": "many"}, None),
        ({}, None),
    ],
)
def test_the_context_is_the_configs(
    tmp_path: Path, config: dict[str, Any], context: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    assert base_facts(str(tmp_path)) == BaseFacts(context, PLAIN)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chat_template.jinja", "{{ messages }}"),
        ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}'),
    ],
)
def test_a_base_with_a_chat_template_chats(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    (tmp_path / name).write_text(text, "utf-8")
    assert base_facts(str(tmp_path)) == BaseFacts(None, CHATS)
