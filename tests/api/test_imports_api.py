"""`POST /v1/models`: what is let in, and that a refusal leaves nothing behind."""

import contextlib
import json
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
from openai.types import Model as SdkModel
from tests.cli import in_process
from tests.support import bases, servers, uploading
from tests.support.bases import RANK, Adapter, adapter_config, adapter_weights
from tests.support.servers import LOCAL_BASE, ORGANIZATION, Reply, Server, wait_until

from tunewarden.identity.policy import ProjectRole

ADAPTER_BYTES_MAX = 256 * 1024
UNPICKLED = f"/dev/shm/tunewarden-test-unpickled-{os.getpid()}"
LAYER = "base_model.model.model.layers.0.self_attn"
Parts = tuple[tuple[str, bytes], ...]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes small adapters only, so that sizes can be tested."""
    data = tmp_path_factory.mktemp("imports") / "data"
    settings = {
        "adapter_bytes_max": ADAPTER_BYTES_MAX,
        "import_memory_max": 4 * ADAPTER_BYTES_MAX,
    }
    with servers.serving(
        data, settings=settings, local_base=True, kind=servers.WithoutTorch
    ) as running:
        yield running


@pytest.fixture
def settled(small: Server) -> Server:
    """The same server when nothing is left of earlier deletions, so that states can be compared."""
    uploading.settle(small)
    return small


def _parts(adapter: Adapter | None = None, **fields: bytes | None) -> Parts:
    chosen = adapter or bases.adapter()
    parts: dict[str, bytes | None] = {
        "base": LOCAL_BASE.encode(),
        "suffix": b"s",
        "adapter_config": chosen.config,
        "adapter_model": chosen.weights,
    }
    return tuple((name, value) for name, value in (parts | fields).items() if value is not None)


def _post(server: Server, body: bytes, content_type: str) -> Reply:
    headers = {"content-type": content_type}
    return server.request("POST", "/v1/models", key=server.owner_key, headers=headers, body=body)


def _state(server: Server) -> dict[str, object]:
    """Everything that an import could leave somewhere."""
    keyring = server.app.keyring
    with server.app.database.read() as tx:
        counts = [
            tx.row(f"SELECT COUNT(*) FROM {table}") for table in ("drafts", "models", "blobs")
        ]
    return {
        "rows": counts,
        "blobs": sorted(path.name for path in server.app.config.blobs.rglob("*")),
        "keys": [one for shard in keyring.shards() for one in keyring.key_ids(shard)],
        "scratch": sorted(server.scratch.rglob("*/*")),
        "tmp": sorted(server.tmp.rglob("*")),
    }


def test_an_import_by_the_sdk_gives_a_model_like_any_other(small: Server) -> None:
    adapter = bases.adapter()
    client = small.client()
    model = client.post(
        "/models",
        cast_to=SdkModel,
        body={"base": LOCAL_BASE, "suffix": "harbour"},
        files={
            "adapter_config": ("adapter_config.json", adapter.config),
            "adapter_model": ("adapter_model.safetensors", adapter.weights),
        },
        options={"headers": {"content-type": "multipart/form-data"}},
    )
    assert model.id.startswith(f"ft:{LOCAL_BASE}:{ORGANIZATION}:harbour:")
    assert client.models.retrieve(model.id).owned_by == ORGANIZATION
    assert model.id in [one.id for one in client.models.list()]
    assert client.models.delete(model.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(model.id)


def test_an_import_without_a_suffix_has_an_empty_one(small: Server) -> None:
    reply = _post(small, *bases.form(*_parts(suffix=None)))
    assert reply.status == 200, reply.body
    assert str(reply.json["id"]).startswith(f"ft:{LOCAL_BASE}:{ORGANIZATION}::")


def test_a_deleted_import_leaves_no_key_and_soon_no_blob(small: Server) -> None:
    model = small.make_model()
    assert small.app.keyring.contains(model.key_id), "control: an import makes a key"
    assert len(small.app.blobs.names(f"{model.internal_id}/")) == 2, "control: it makes blobs"
    small.client().models.delete(model.id)
    assert not small.app.keyring.contains(model.key_id)
    wait_until(lambda: not small.app.blobs.names(f"{model.internal_id}/"), "the blobs are erased")


def test_an_import_takes_metadata_which_are_sealed_declare_its_origins_and_go_with_it(
    settled: Server,
) -> None:
    client = settled.client()
    file = client.files.create(file=("a.jsonl", b'{"messages": []}\n'), purpose="fine-tune").id
    described = {"team": "canary-of-metadata, and a comma", "trained_on": file}
    reply = _post(settled, *bases.form(*_parts(metadata=json.dumps(described).encode())))
    assert reply.status == 200, reply.body
    model = str(reply.json["id"])
    assert reply.json["metadata"] == described
    assert client.models.retrieve(model).to_dict()["metadata"] == described
    down = settled.get(f"/v1/files/{file}/lineage", key=settled.owner_key).json["down"]["data"]
    assert [(one["id"], one["declared"]) for one in down] == [(model, True)]
    sealed = "SELECT m.sealed_metadata FROM models m JOIN artifacts a ON a.n = m.n WHERE a.id = :id"
    row = settled.app.database.peek(sealed, id=model)
    assert row is not None
    assert row[0]
    assert b"canary" not in bytes(row[0])
    client.models.delete(model)
    assert settled.app.database.peek(sealed, id=model) == (None,)


def test_the_largest_metadata_fit_though_every_character_is_escaped(settled: Server) -> None:
    largest = {f"{n:x}" + "😀" * 63: "😀" * 512 for n in range(16)}
    reply = _post(settled, *bases.form(*_parts(metadata=json.dumps(largest).encode())))
    assert reply.status == 200, reply.body
    assert reply.json["metadata"] == largest
    model = reply.json["id"]
    turned = {name: f"{text[1:]}." for name, text in largest.items()}
    changed = settled.post(f"/v1/models/{model}", {"metadata": turned})
    assert (changed.status, changed.json["metadata"]) == (200, turned), changed.body
    settled.client().models.delete(str(model))


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        (b"{", "metadata"),
        (b"[]", "metadata"),
        (b'{"a": 1}', "metadata"),
        (b'{"a": "1", "a": "2"}', "metadata"),
        (json.dumps({str(n): "x" for n in range(17)}).encode(), "metadata"),
        (json.dumps({"a": "x" * 513}).encode(), "metadata"),
        (b"[" * 60_000, "metadata"),
        (b'{"trained_on": "file-of-nobody"}', "metadata.trained_on"),
    ],
    ids=["no JSON", "a list", "a number", "twice", "17 pairs", "long", "deep", "unknown origin"],
)
def test_metadata_that_cannot_be_are_refused_and_nothing_is_left(
    settled: Server, metadata: bytes, param: str
) -> None:
    before = _state(settled)
    reply = _post(settled, *bases.form(*_parts(metadata=metadata)))
    assert (reply.status, reply.error["param"]) == (400, param)
    assert _state(settled) == before


def test_what_an_import_was_trained_on_is_an_owners_to_declare(settled: Server) -> None:
    file = settled.client().files.create(file=("a.jsonl", b"{}\n"), purpose="user_data").id
    member = settled.make_key("reader", project_role=ProjectRole.MEMBER)
    before = _state(settled)
    for metadata, status in (({"trained_on": file}, 403), ({"team": "a"}, 200)):
        body, kind = bases.form(*_parts(metadata=json.dumps(metadata).encode()))
        headers = {"content-type": kind}
        reply = settled.request("POST", "/v1/models", key=member, headers=headers, body=body)
        assert reply.status == status, reply.body
        if status == 403:
            assert _state(settled) == before


def test_the_command_takes_pairs_of_metadata(small: Server, tmp_path: Path) -> None:
    adapter = bases.adapter()
    (tmp_path / "adapter_config.json").write_bytes(adapter.config)
    (tmp_path / "adapter_model.safetensors").write_bytes(adapter.weights)
    asked = ("models", "import", str(tmp_path), "--base", LOCAL_BASE)
    made = in_process.on(small, *asked, "--metadata", "team=a=b", "--metadata", "run=7")
    assert made.returncode == 0, made.stderr
    shown = small.client().models.retrieve(made.stdout.strip()).to_dict()
    assert shown["metadata"] == {"team": "a=b", "run": "7"}
    assert in_process.on(small, *asked, "--metadata", "team").returncode == 2


def _with(name: str, *shape: int) -> bytes:
    return adapter_weights(changed={name: np.zeros(shape, np.float32)})


class _Payload:
    """Would make a file if anybody unpickled it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (UNPICKLED,)


GOOD = bases.adapter()
ONE_NAN = np.zeros((RANK, bases.HIDDEN), np.float32)
ONE_NAN[2, 3] = np.nan
HOSTILE: dict[str, Parts] = {
    "a pickle": _parts(adapter_model=pickle.dumps(_Payload())),
    "a torch zip": _parts(adapter_model=b"PK\x03\x04" + bytes(100)),
    "empty weights": _parts(adapter_model=b""),
    "eight bytes": _parts(adapter_model=bytes(8)),
    "a header without end": _parts(adapter_model=b"\xff" * 8 + b"{"),
    "truncated weights": _parts(adapter_model=GOOD.weights[:-1]),
    "weights with a tail": _parts(adapter_model=GOOD.weights + b"\0"),
    "another rank": _parts(adapter_model=adapter_weights(rank=8)),
    "NaN": _parts(adapter_model=adapter_weights(first=ONE_NAN)),
    "another base's layers": _parts(
        adapter_model=_with("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", 4, 16)
    ),
    "DoRA weights": _parts(adapter_model=_with(f"{LAYER}.q_proj.lora_magnitude_vector", 16)),
    "a saved module": _parts(adapter_model=_with("base_model.model.lm_head.weight", 32, 16)),
    "a DoRA config": _parts(adapter_config=adapter_config(use_dora=True)),
    "modules_to_save": _parts(adapter_config=adapter_config(modules_to_save=["lm_head"])),
    "a rank beyond the limit": _parts(adapter_config=adapter_config(r=65)),
    "a config that is no JSON": _parts(adapter_config=b"{"),
    "a config of nothing but depth": _parts(adapter_config=b"[" * 60_000),
    "a huge config": _parts(adapter_config=b" " * 70_000),
    "no weights": _parts(adapter_model=None),
    "no config": _parts(adapter_config=None),
    "no base": _parts(base=None),
    "an unknown base": _parts(base=b"nobody"),
    "a base with a path": _parts(base=b"../../etc"),
    "a base that is not text": _parts(base=b"\xff"),
    "a suffix with a colon": _parts(suffix=b"a:b"),
    "a suffix that is too long": _parts(suffix=b"x" * 65),
    "a suffix with a line end": _parts(suffix=b"a\n"),
    "a field twice": (*_parts(), ("base", b"other")),
    "a file twice": (*_parts(), ("adapter_model", GOOD.weights)),
    "too many parts": (*_parts(), *((f"x{n}", b"") for n in range(20))),
    "a field without end": _parts(base=b"x" * 140_000),
    "too large": _parts(adapter_model=bytes(ADAPTER_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_cannot_be_let_in_is_refused_and_leaves_nothing(settled: Server, what: str) -> None:
    before = _state(settled)
    reply = _post(settled, *bases.form(*HOSTILE[what]))
    assert reply.status in {400, 413}, reply.body
    assert (reply.status == 413) == (what in {"too large", "a field without end"})
    assert reply.error["type"] == "invalid_request_error"
    message = str(reply.error["message"])
    assert 10 < len(message) < 500
    assert str(settled.data) not in message
    assert _state(settled) == before
    assert not Path(UNPICKLED).exists()


MALFORMED: dict[str, tuple[bytes, str]] = {
    "another boundary": (bases.form(*_parts())[0], "multipart/form-data; boundary=other"),
    "no boundary": (bases.form(*_parts())[0], "multipart/form-data"),
    "an empty boundary": (bases.form(*_parts())[0], "multipart/form-data; boundary="),
    "a boundary that is too long": (
        bases.form(*_parts())[0],
        f"multipart/form-data; boundary={'x' * 5000}",
    ),
    "no last boundary": bases.form(*_parts(), end="\r\n"),
    "nothing": (b"", "multipart/form-data; boundary=x"),
    "JSON": (b"{}", "application/json"),
    "a part without a name": (
        b"--x\r\nContent-Disposition: form-data\r\n\r\nhello\r\n--x--\r\n",
        "multipart/form-data; boundary=x",
    ),
    "a part without headers": (
        b"--x\r\n\r\nhello\r\n--x--\r\n",
        "multipart/form-data; boundary=x",
    ),
    "a header without end": (
        b"--x\r\nContent-Disposition: " + b"x" * 20_000,
        "multipart/form-data; boundary=x",
    ),
    "a name that is not text": (
        b'--x\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\nhello\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_form_is_a_400_and_leaves_nothing(settled: Server, what: str) -> None:
    before = _state(settled)
    reply = _post(settled, *MALFORMED[what])
    assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
    assert _state(settled) == before


def test_weights_of_exactly_the_largest_size_are_not_too_large(small: Server) -> None:
    reply = _post(small, *bases.form(*_parts(adapter_model=bytes(ADAPTER_BYTES_MAX))))
    assert reply.status == 400, "read, and then refused for what it is"


def test_a_connection_closed_in_the_middle_leaves_nothing(settled: Server) -> None:
    before = _state(settled)
    body, content_type = bases.form(*_parts())
    for sent in (10, len(body) // 2, len(body) - 1):
        connection = settled.connect()
        connection.sendall(
            f"POST /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {settled.owner_key}\r\n"
            f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body[:sent]
        )
        time.sleep(0.05)  # so that the server has begun to read
        connection.close()
    wait_until(lambda: _state(settled) == before, "nothing is left")
    wait_until(lambda: _open_memory(settled) == 0, "the uploads' memory is given back")
    assert "Traceback" not in settled.log(), settled.log()


def _open_memory(server: Server) -> int:
    """How many uploads the server's processes hold in anonymous memory."""
    links = (
        link
        for pid in server.processes()
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.is_symlink()
    )
    return sum("memfd:upload" in str(link.readlink()) for link in links)


def test_a_reader_is_refused_before_the_upload_is_read(small: Server) -> None:
    connection = small.connect()
    connection.sendall(
        f"POST /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {small.make_key('reader')}"
        "\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: 1000000\r\n\r\n".encode()
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 403 ")
    connection.close()


def test_many_imports_at_once_each_give_a_model(small: Server) -> None:
    body, content_type = bases.form(*_parts())
    found: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: found.append(_post(small, body, content_type)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in found] == [200] * 8
    assert len({str(reply.json["id"]) for reply in found}) == 8


# The command line


def test_the_command_imports_a_directory(small: Server, tmp_path: Path) -> None:
    directory = bases.adapter().write(tmp_path / "adapter")
    small.stop()  # without a server it returns at once: nothing can answer
    imported = in_process.on(
        small, "models", "import", str(directory), "--base", LOCAL_BASE, "--suffix", "a"
    )
    small.start_again()
    assert imported.returncode == 0, imported.stderr
    model_id = imported.stdout.strip()
    assert model_id.startswith(f"ft:{LOCAL_BASE}:{ORGANIZATION}:a:")
    assert "No server is running" in imported.stderr
    assert small.client().models.retrieve(model_id).id == model_id


def test_the_command_refuses_what_the_server_refuses(settled: Server, tmp_path: Path) -> None:
    bad = Adapter(adapter_config(), adapter_weights(first=ONE_NAN)).write(tmp_path / "nan")
    (tmp_path / "empty").mkdir()
    settings = {"OPENAI_BASE_URL": settled.url, "OPENAI_API_KEY": settled.owner_key}
    before = _state(settled)
    for directory, said in ((bad, "NaN"), (tmp_path / "empty", "adapter_config.json")):
        for arguments in (("--data", str(settled.data)), ()):
            refused = servers.run_cli(
                "models", "import", str(directory), "--base", LOCAL_BASE, *arguments,
                settings={} if arguments else settings,
            )  # fmt: skip
            assert (refused.returncode, refused.stdout) == (1, "")
            assert said in refused.stderr
            assert "Traceback" not in refused.stderr
    assert _state(settled) == before


def test_httpx_and_python_forms_are_read_too(small: Server) -> None:
    adapter = bases.adapter()
    answer = httpx2.post(
        f"{small.url}/models",
        headers={"authorization": f"Bearer {small.owner_key}"},
        data={"base": LOCAL_BASE, "suffix": "x"},
        files={"adapter_config": adapter.config, "adapter_model": adapter.weights},
    )
    assert answer.status_code == 200, answer.text


# I16


def test_weights_are_nowhere_on_the_disk_in_the_plain(small: Server, tmp_path: Path) -> None:
    canary = f"CANARY-{os.urandom(8).hex()}-"
    adapter = bases.adapter(canary)
    assert canary.encode() in adapter.weights
    control = small.data / "control"
    control.write_bytes(adapter.weights)
    assert _holding(small.data, canary) == [control], "control: the scan finds what is there"
    control.unlink()
    seen: list[Path] = []
    scans = 0
    stop = threading.Event()

    def scan() -> None:
        nonlocal scans
        while not stop.is_set():
            seen.extend(_holding(small.data, canary))
            scans += 1

    scanning = threading.Thread(target=scan)
    scanning.start()
    body, content_type = bases.form(*_parts(adapter))
    models = [str(_post(small, body, content_type).json["id"]) for _ in range(20)]
    stop.set()
    scanning.join()
    print(f"{scans} scans during {len(models)} imports")
    assert scans > 3
    assert seen == []
    assert _holding(small.data, canary) == []
    for model in models:
        small.client().models.delete(model)
    assert _holding(small.data, canary) == []
    assert _holding(small.scratch, canary) == []


def _holding(directory: Path, canary: str) -> list[Path]:
    """Return the files that hold the canary; what goes away meanwhile is looked at next time."""
    found = []
    for path in directory.rglob("*"):
        try:
            if path.is_file() and canary.encode() in path.read_bytes():
                found.append(path)
        except (FileNotFoundError, PermissionError):
            continue
    return found


def _announced(server: Server, key: str) -> socket.socket:
    """Begin an import of the largest size and send no more of it than its head."""
    connection = server.connect()
    head = (
        f"POST /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: {ADAPTER_BYTES_MAX}\r\n\r\n"
    )
    connection.sendall(head.encode() + b"--B\r\n")
    return connection


def test_one_organizations_unfinished_imports_leave_room_for_others(small: Server) -> None:
    hog = small.make_key("owner", organization="hog")
    with contextlib.ExitStack() as connections:
        for _ in range(2):
            connections.enter_context(_announced(small, hog))
        time.sleep(0.2)
        refused = connections.enter_context(_announced(small, hog))
        answer = refused.recv(65536)
        assert answer.startswith(b"HTTP/1.1 429 "), "before its body came"
        assert b"retry-after: 5" in answer.lower()
        client = small.client()
        client.post(
            "/models",
            cast_to=SdkModel,
            body={"base": LOCAL_BASE, "suffix": "room"},
            files=[
                ("adapter_config", ("c", bases.adapter().config)),
                ("adapter_model", ("w", bases.adapter().weights)),
            ],
            options={"headers": {"content-type": "multipart/form-data"}},
        )

    def is_given_back() -> bool:
        with _announced(small, hog) as again:
            again.settimeout(0.3)
            try:
                return not again.recv(65536)
            except TimeoutError:
                return True

    wait_until(is_given_back, "the memory of imports that were broken off is given back")
