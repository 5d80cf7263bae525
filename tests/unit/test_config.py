"""A flag beats the environment, which beats the file; what cannot be is refused."""

from dataclasses import fields
from pathlib import Path

import pytest

from tunewarden import config
from tunewarden.config import SETTINGS, Config
from tunewarden.errors import Error
from tunewarden.settings import Source, host_and_port


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory, and an environment that has no setting but that it is there."""
    for setting in SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("TUNEWARDEN_DATA", str(tmp_path))
    return tmp_path


def test_each_place_beats_those_before_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "tunewarden.toml").write_text("port = 1\nworkers = 2\nrank_max = 3\n")
    monkeypatch.setenv("TUNEWARDEN_PORT", "10")
    monkeypatch.setenv("TUNEWARDEN_WORKERS", "20")
    flags = {"port": 100, "host": None}
    found, sources = config.load(**flags), config.sources(**flags)
    assert (found.port, found.workers, found.rank_max) == (100, 20, 3)
    assert (found.data, found.host) == (data, "127.0.0.1")
    assert [sources[name] for name in ("port", "workers", "rank_max", "host", "data")] == [
        Source.FLAG,
        Source.ENVIRONMENT,
        Source.FILE,
        Source.DEFAULT,
        Source.ENVIRONMENT,
    ]


def test_the_file_is_the_one_in_the_directory_that_the_flag_names(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (data / "tunewarden.toml").write_text("port = 1\n")
    (other / "tunewarden.toml").write_text(f"port = 2\ndata = '{data}'\n")
    assert (config.load(data=other).port, config.load(data=other).data) == (2, other)


def test_without_any_setting_all_are_what_the_reference_says(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWARDEN_DATA", "")
    monkeypatch.chdir(data)
    assert config.load() == Config()
    assert set(config.sources().values()) == {Source.DEFAULT}


def test_every_default_is_a_value_that_is_accepted(data: Path) -> None:
    for setting in SETTINGS.values():
        assert setting.read(setting.default) == setting.default
        assert setting.read(setting.shown(setting.default)) == setting.default
    assert data.exists()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("fence_seconds", "2", 2.0),
        ("scratch", "/tmp", Path("/tmp")),
        ("docs_are_open", "True", True),
        ("engine_dtype", "auto", "auto"),
        ("trusted_proxies", "10.0.0.0/8, ::1", "10.0.0.0/8, ::1"),
    ],
)
def test_text_becomes_the_type_of_its_setting(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(SETTINGS[name].variable, text)
    found = getattr(config.load(data=data), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("port = 65536", "Setting 'port' must be a whole number from 0 to 65535."),
        ("port = 80.0", "Setting 'port' must be a whole number from 0 to 65535."),
        ("port = true", "Setting 'port' must be a whole number from 0 to 65535."),
        ("port = 'http'", "Setting 'port' must be a whole number from 0 to 65535."),
        ("fence_seconds = nan", "Setting 'fence_seconds' must be a number from 0.01 to 60."),
        ("fence_seconds = 0", "Setting 'fence_seconds' must be a number from 0.01 to 60."),
        ("docs_are_open = 1", "Setting 'docs_are_open' must be true or false."),
        ("host = ''", "Setting 'host' must be text."),
        ("host = 1", "Setting 'host' must be text."),
        ("engine_dtype = 'int8'", "Setting 'engine_dtype' must be one of float32, bfloat16, auto."),
        ("trusted_proxies = 'proxy'", "Setting 'trusted_proxies' must be addresses or networks"),
        ("prot = 80", "Unknown setting 'prot' in tunewarden.toml. Known: access_log,"),
        ("port: 80", "tunewarden.toml is not valid TOML:"),
    ],
)
def test_what_cannot_be_is_refused(data: Path, line: str, said: str) -> None:
    (data / "tunewarden.toml").write_text(f"{line}\n")
    with pytest.raises(Error) as refused:
        config.load(data=data)
    assert refused.value.message.startswith(said)


def test_an_unknown_name_in_the_environment_is_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWARDEN_PROT", "80")
    with pytest.raises(Error, match="Unknown setting 'prot' in the environment"):
        config.load(data=data)


def test_every_number_has_limits_and_every_unit_is_in_the_name() -> None:
    for setting in SETTINGS.values():
        is_number = isinstance(setting.default, (int, float)) and not isinstance(
            setting.default, bool
        )
        assert (setting.limits is not None) == is_number
        assert setting.unit in {"", "seconds", "bytes"}
        assert ("seconds" in setting.name) == (setting.unit == "seconds")
    assert len(SETTINGS) == len(fields(Config))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("none", None),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:0", ("::1", 0)),
        ("metrics.example:65535", ("metrics.example", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, found: object) -> None:
    assert host_and_port(text) == found


@pytest.mark.parametrize(
    "text", ["9464", ":9464", "127.0.0.1", "a:65536", "a:-1", "[]:1", "[::1:1"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Error, match="must be HOST:PORT, or none"):
        host_and_port(text)
