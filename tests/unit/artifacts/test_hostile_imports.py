"""Hostile adapters: each is refused politely and cheaply, and nothing else ever comes out."""

import json
import os
import struct
import tracemalloc
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from tests.fakes.adapters import (
    BASE,
    DATA,
    FIRST,
    GOOD_CONFIG,
    GOOD_HEADER,
    GOOD_WEIGHTS,
    LAST,
    RANK,
    config,
    encoded,
    file_of,
    tensors,
    weights,
    with_entry,
    with_tensor,
    with_value,
    without,
)

from tunewarden.artifacts.adapters import CheckedAdapter, check_adapter
from tunewarden.errors import Error, Kind

HOSTILE_WEIGHTS: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"\x02\0\0\0\0\0\0",
    "a length alone": struct.pack("<Q", 2),
    "an empty header and nothing else": file_of(b"{}", b""),
    "a zip": b"PK\x03\x04" + GOOD_WEIGHTS,
    "a pickle of protocol 2": b"\x80\x02}q\0." + bytes(64),
    "a pickle of protocol 4": b"\x80\x04\x95" + bytes(64),
    "a pickle of protocol 5": b"\x80\x05\x95" + bytes(64),
    "a pickle of protocol 0": b"cos\nsystem\n(S'id'\ntR.",
    "a tar": (b"adapter" + bytes(250) + b"ustar\x0000" + bytes(248)),
    "a gzip": b"\x1f\x8b\x08" + bytes(64),
    "GGUF": b"GGUF\x03\0\0\0" + bytes(64),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "a header beyond the file": struct.pack("<Q", len(GOOD_WEIGHTS)) + GOOD_WEIGHTS[8:],
    "a header of 2**64-1 bytes": struct.pack("<Q", 2**64 - 1) + GOOD_WEIGHTS[8:],
    "a header of 2**63 bytes": struct.pack("<Q", 2**63) + GOOD_WEIGHTS[8:],
    "a header of 0 bytes": struct.pack("<Q", 0) + GOOD_WEIGHTS[8:],
    "a header of 9 MiB": file_of(b"{" + b" " * 9 * 1024 * 1024 + b"}", b""),
    "a byte short": GOOD_WEIGHTS[:-1],
    "half of it": GOOD_WEIGHTS[: len(GOOD_WEIGHTS) // 2],
    "a byte more": GOOD_WEIGHTS + b"x",
    "a list as header": file_of(b"[]", b""),
    "a header after a space": file_of(b" " + GOOD_HEADER, DATA),
    "a header after a byte order mark": file_of(b"\xef\xbb\xbf" + GOOD_HEADER, DATA),
    "UTF-16": file_of(GOOD_HEADER.decode().encode("utf-16"), DATA),
    "latin-1 in the header": file_of(b'{"\xe9": 1}', b""),
    "a header cut off": file_of(GOOD_HEADER[:-1], DATA),
    "two headers": file_of(GOOD_HEADER * 2, DATA),
    "a name twice": file_of(
        GOOD_HEADER[:-1] + b"," + GOOD_HEADER[GOOD_HEADER.index(b'"base') :], DATA
    ),
    "dtype twice": file_of(GOOD_HEADER.replace(b'"dtype"', b'"dtype": "F32", "dtype"', 1), DATA),
    "metadata of numbers": weights(__metadata__={"a": 1}),
    "metadata in depth": weights(__metadata__={"a": {"b": "c"}}),
    "metadata as a list": weights(__metadata__=[]),
    "deep lists": file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
    "deep objects": file_of(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b""),
    "too deep, but few": file_of(b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}", b""),
    "millions of values": file_of(b'{"a":[' + b"0," * 3_000_000 + b"0]}", b""),
    "a number of 5000 digits": with_entry(shape=[4, 16]).replace(b"[4, 16]", b"[" + b"9" * 5000 + b"]", 1),
    "an infinite number": file_of(GOOD_HEADER.replace(b"[0, 256]", b"[0, 1e999]"), DATA),
    "NaN as a number": file_of(GOOD_HEADER.replace(b"[0, 256]", b"[0, NaN]"), DATA),
    "an entry that is a list": weights(odd=[]),
    "an entry without a shape": weights(odd={"dtype": "F32", "data_offsets": [0, 0]}),
    "an entry with more": with_entry(loader="os.system"),
    "a shape that is no list": with_entry(shape="16"),
    "a shape of booleans": with_entry(shape=[True, 64]),
    "a shape of floats": with_entry(shape=[4.0, 16.0]),
    "a negative shape": with_entry(shape=[-4, -16]),
    "a shape of nine dimensions": with_entry(shape=[64, 1, 1, 1, 1, 1, 1, 1, 1]),
    "a shape that overflows": with_entry(shape=[2**40, 2**40]),
    "a shape that wraps to the right size": with_entry(shape=[2**47, 2**47]),
    "one offset": with_entry(data_offsets=[0]),
    "three offsets": with_entry(data_offsets=[0, 1, 2]),
    "offsets backwards": with_entry(data_offsets=[256, 0]),
    "negative offsets": with_entry(data_offsets=[-256, 0]),
    "offsets beyond the file": with_entry(data_offsets=[10**9, 10**9 + 256]),
    "overlapping offsets": with_entry(data_offsets=[64, 320]),
    "a gap": weights(tensors() | {"gap": ("F32", [2], b"")}).replace(b"[1792, 1792]", b"[1800, 1808]"),
    "offsets that do not fit the shape": with_entry(shape=[4, 15]),
    "an unknown dtype": with_entry(dtype="F33"),
    "a dtype that is a list": with_entry(dtype=[]),
    "64-bit floats": weights(tensors() | {FIRST: ("F64", [RANK, 16], bytes(512))}),
    "integers": with_entry(dtype="I32"),
    "8-bit floats": weights(tensors() | {FIRST: ("F8_E4M3", [RANK, 16], bytes(64))}),
    "no tensors": weights({}),
    "A without B": without(LAST),
    "B without A": without(FIRST),
    "a layer less than the config says": without(*list(tensors())[-2:]),
    "A transposed": with_entry(shape=[16, RANK]),
    "A flat": with_entry(shape=[64]),
    "A with an empty dimension": weights(tensors() | {FIRST: ("F32", [0, 16], b"")}),
    "another rank in one layer": weights(tensors() | {FIRST: ("F32", [2, 16], bytes(128))}),
    "a layer that the base lacks": with_tensor(FIRST.replace("layers.0", "layers.7"), [4, 16]),
    "a module that the base lacks": with_tensor(FIRST.replace("q_proj", "x_proj"), [4, 16]),
    "a module that the config does not name": with_tensor(FIRST.replace("q_proj", "k_proj"), [4, 16]),
    "lm_head": with_tensor("base_model.model.lm_head.lora_A.weight", [4, 16]),
    "a whole lm_head": with_tensor("base_model.model.lm_head.weight", [64, 16]),
    "a DoRA magnitude": with_tensor(
        FIRST.replace("lora_A.weight", "lora_magnitude_vector"), [16]
    ),
    "an embedding": with_tensor("base_model.model.model.embed_tokens.lora_embedding_A", [4, 64]),
    "a bias": with_tensor(FIRST.replace("lora_A.weight", "lora_B.bias"), [16]),
    "no prefix": with_tensor(FIRST.removeprefix("base_model.model."), [4, 16]),
    "an adapter's name in the key": with_tensor(FIRST.replace("A.weight", "A.default.weight"), [4, 16]),
    "a path as a name": with_tensor("../../etc/passwd", [4, 16]),
    "a lone surrogate as a name": with_tensor("\ud800", [4, 16]),
    "a very long name": with_tensor("x" * 100_000, [4, 16]),
    "an empty name": with_tensor("", [4, 16]),
    "a NaN": with_value("F32", struct.pack("<f", float("nan"))),
    "an infinity": with_value("F32", struct.pack("<f", float("inf"))),
    "a negative infinity": with_value("F32", struct.pack("<f", float("-inf"))),
    "a signalling NaN": with_value("F32", bytes.fromhex("0100a07f")),
    "a half-precision NaN": with_value("F16", bytes.fromhex("017e")),
    "a half-precision infinity": with_value("F16", bytes.fromhex("00fc")),
    "a bfloat16 NaN": with_value("BF16", bytes.fromhex("c07f")),
    "a bfloat16 infinity": with_value("BF16", bytes.fromhex("80ff")),
}  # fmt: skip

HOSTILE_CONFIGS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"r: 4",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "latin-1": b'{"r": "\xe9"}',
    "UTF-16": GOOD_CONFIG.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD_CONFIG,
    "a key twice": GOOD_CONFIG[:-1] + b', "r": 4}',
    "65 KiB": GOOD_CONFIG + b" " * 65 * 1024,
    "deep lists": b'{"a":' + b"[" * 9_000 + b"]" * 9_000 + b"}",
    "deep objects": b'{"a":' * 6_000 + b"1" + b"}" * 6_000,
    "NaN": encoded(config(lora_alpha=float("nan"))),
    "an infinite alpha": GOOD_CONFIG.replace(b'"lora_alpha": 8', b'"lora_alpha": 1e999'),
    "an alpha of 5000 digits": GOOD_CONFIG.replace(b'"lora_alpha": 8', b'"lora_alpha": ' + b"9" * 5000),
    "an alpha of 4000 digits": GOOD_CONFIG.replace(b'"lora_alpha": 8', b'"lora_alpha": ' + b"9" * 4000),
    "control characters": GOOD_CONFIG.replace(b"CAUSAL_LM", b"CAUSAL\x00LM"),
    "no peft_type": encoded({k: v for k, v in config().items() if k != "peft_type"}),
    "no r": encoded({k: v for k, v in config().items() if k != "r"}),
    "no lora_alpha": encoded({k: v for k, v in config().items() if k != "lora_alpha"}),
    "no target_modules": encoded({k: v for k, v in config().items() if k != "target_modules"}),
    **{
        f"{name} = {json.dumps(value)[:40]}": encoded(config(**{name: value}))
        for name, value in [
            ("peft_type", "IA3"), ("peft_type", "PROMPT_TUNING"), ("peft_type", "ADALORA"),
            ("peft_type", None), ("peft_type", ["LORA"]), ("r", 0), ("r", -1), ("r", 65),
            ("r", 10**30), ("r", 4.0), ("r", "4"), ("r", True), ("r", None), ("r", 8),
            ("lora_alpha", 0), ("lora_alpha", -8), ("lora_alpha", 1e30), ("lora_alpha", "8"),
            ("lora_alpha", True), ("lora_alpha", None), ("lora_alpha", [8]),
            ("use_dora", True), ("use_dora", "yes"), ("use_rslora", "true"), ("use_rslora", 1),
            ("bias", "all"), ("bias", "lora_only"), ("bias", True), ("lora_bias", True),
            ("fan_in_fan_out", True), ("modules_to_save", ["lm_head"]),
            ("modules_to_save", "lm_head"), ("task_type", "SEQ_CLS"), ("task_type", 5),
            ("task_type", {"a": 1}), ("layers_to_transform", [0]), ("layers_to_transform", 3),
            ("layers_pattern", "layers"), ("layer_replication", [[0, 1]]),
            ("rank_pattern", {"q_proj": 2}), ("alpha_pattern", {"q_proj": 2}),
            ("rank_pattern", [1]), ("alpha_pattern", "x"), ("exclude_modules", ["v_proj"]),
            ("trainable_token_indices", [1]), ("target_parameters", ["experts.weight"]),
            ("alora_invocation_tokens", [1, 2]), ("use_qalora", True), ("arrow_config", {"a": 1}),
            ("megatron_config", {"tensor_model_parallel_size": 2}), ("loftq_config", {"bits": 4}),
            ("corda_config", {"a": 1}), ("kasa_config", {"a": 1}), ("use_bdlora", {"a": 1}),
            ("ensure_weight_tying", True), ("init_lora_weights", "pissa"),
            ("init_lora_weights", "pissa_niter_16"), ("init_lora_weights", "olora"),
            ("init_lora_weights", "corda"), ("init_lora_weights", "loftq"),
            ("init_lora_weights", "lora_ga"), ("init_lora_weights", ["gaussian"]),
            ("init_lora_weights", {"a": 1}), ("target_modules", []), ("target_modules", None),
            ("target_modules", ""), ("target_modules", [1]), ("target_modules", {"q_proj": 1}),
            ("target_modules", ["q_proj"]), ("target_modules", ["q_proj", "lm_head"]),
            ("target_modules", ["q_proj", "v_proj", "k_proj"]), ("target_modules", ["q_proj", ""]),
            ("target_modules", ["q_proj", "v_proj", "\ud800"]), ("auto_map", {"a": "b.c"}),
            ("a_field_of_the_future", 1), ("\ud800", 1), ("x" * 30_000, "y" * 30_000),
        ]
    },
}  # fmt: skip


def refused(config_bytes: bytes, weight_bytes: bytes, param: str | None = None) -> None:
    with pytest.raises(Error) as caught:
        check_adapter(config_bytes, weight_bytes, BASE)
    error = caught.value
    assert (error.kind, error.code) == (Kind.INVALID, "invalid_adapter")
    assert error.param == param or (
        param is None and error.param in {"adapter_config", "adapter_model"}
    )
    assert len(error.message) < 600
    assert error.message.isascii()


@pytest.mark.parametrize("name", HOSTILE_WEIGHTS)
def test_hostile_weights_are_refused(name: str) -> None:
    refused(GOOD_CONFIG, HOSTILE_WEIGHTS[name], None if "config" in name else "adapter_model")


@pytest.mark.parametrize("name", HOSTILE_CONFIGS)
def test_a_hostile_config_is_refused(name: str) -> None:
    refused(HOSTILE_CONFIGS[name], GOOD_WEIGHTS)


def test_the_hostile_inputs_are_many_and_distinct() -> None:
    inputs = [("w", data) for data in HOSTILE_WEIGHTS.values()]
    inputs += [("c", data) for data in HOSTILE_CONFIGS.values()]
    assert len(set(inputs)) == len(inputs) >= 60
    assert GOOD_WEIGHTS not in HOSTILE_WEIGHTS.values()
    assert GOOD_CONFIG not in HOSTILE_CONFIGS.values()


def test_no_hostile_input_claims_much_memory() -> None:
    check_adapter(GOOD_CONFIG, GOOD_WEIGHTS, BASE)
    tracemalloc.start()
    try:
        for data in HOSTILE_WEIGHTS.values():
            refused(GOOD_CONFIG, data)
        for data in HOSTILE_CONFIGS.values():
            refused(data, GOOD_WEIGHTS)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()


def _either(config_bytes: bytes, weight_bytes: bytes) -> None:
    """Check that an adapter is passed or refused in the agreed form: anything else fails."""
    try:
        outcome: CheckedAdapter | Error = check_adapter(config_bytes, weight_bytes, BASE)
    except Error as error:
        outcome = error
    assert isinstance(outcome, CheckedAdapter) or outcome.code == "invalid_adapter"


@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 6)), max_size=6
    ),
    on_config=st.booleans(),
)
@settings(max_examples=int(os.environ.get("TUNEWARDEN_TEST_EXAMPLES", "150")))
def test_mutated_bytes_are_checked_or_refused_and_nothing_else(
    edits: list[tuple[float, bytes, int]], on_config: bool
) -> None:
    data = bytearray(GOOD_CONFIG if on_config else GOOD_WEIGHTS)
    for where, new, old_bytes in edits:
        # Squared: most edits hit the header, where the meaning is.
        at = int(where * where * len(data))
        data[at : at + old_bytes] = new
    _either(bytes(data) if on_config else GOOD_CONFIG, GOOD_WEIGHTS if on_config else bytes(data))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["F32", "BF16", "LORA", [0, 256], [4, 16], "none", "CAUSAL_LM"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.long
@given(
    changes=st.dictionaries(st.sampled_from(sorted(config())) | st.text(max_size=6), JSON_VALUES),
    entry=st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), JSON_VALUES),
)
@settings(
    max_examples=int(os.environ.get("TUNEWARDEN_TEST_EXAMPLES", "150")),
)
@example(changes={}, entry={})
def test_any_values_in_known_fields_are_checked_or_refused_and_nothing_else(
    changes: dict[str, Any], entry: dict[str, Any]
) -> None:
    _either(encoded(config(**changes)), GOOD_WEIGHTS)
    _either(GOOD_CONFIG, with_entry(**entry))
    _either(GOOD_CONFIG, weights(**{k or "k": v for k, v in changes.items()}))
