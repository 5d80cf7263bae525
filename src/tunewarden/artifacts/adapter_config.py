"""Validates an untrusted `adapter_config.json`: every field is checked, dropped for a reason, or refused.

The result is rewritten (DESIGN §7): no class to import, no path, the base under our own name.
Fields as peft 0.21 writes them; a newer peft's are refused unless they are off.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden.artifacts.base_shapes import BaseShape
from tunewarden.artifacts.strict_json import Malformed, parse_object, shown
from tunewarden.errors import Error, Kind

# Dropped whatever their value: none changes what the weights mean.
HARMLESS_FIELDS = {
    "auto_mapping": "names a class of the base to import; we know the base and import nothing",
    "base_model_name_or_path": "is set to our own name for the base",
    "eva_config": "guided the first values of the weights, before training",
    "inference_mode": "is always true here",
    "init_lora_weights": "the first values of the weights (checked: see ADAPTER_ONLY_STARTS)",
    "lora_dropout": "acts in training only",
    "megatron_core": "names a package to import; without megatron_config it means nothing",
    "peft_version": "says who wrote the file",
    "qalora_group_size": "means nothing without use_qalora, which is refused",
    "revision": "names a version of the base; we know the base",
}
# Other initializations (pissa, olora, corda, loftq, lora_ga) change the base's weights too, so the
# adapter alone fits no base that we serve. peft can convert each of them when saving.
ADAPTER_ONLY_STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica"})

_CHECKED_FIELDS = frozenset(
    {"alpha_pattern", "lora_alpha", "peft_type", "r", "rank_pattern", "target_modules", "task_type",
     "use_rslora"}
)  # fmt: skip
_HINTS = {
    "use_dora": "DoRA adapters are not supported; train with use_dora=False",
    "modules_to_save": "whole modules cannot be imported; train with modules_to_save=None",
    "bias": "trained biases are not supported; train with bias='none'",
    "lora_bias": "trained biases are not supported; train with lora_bias=False",
    "fan_in_fan_out": "transposed layers are not supported",
    "layers_to_transform": "adapt all layers, or name whole modules in target_modules",
}
_OFF: tuple[object, ...] = (None, False, [], {})
_MAX_ALPHA = 65_536
_MAX_VALUES = 20_000
_MAX_SHOWN_TARGETS = 3


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The fields of a plain LoRA. `targets` is None if peft was given a pattern."""

    rank: int
    alpha: float
    use_rslora: bool
    targets: tuple[str, ...] | None

    def rewritten(self, base: BaseShape, modules: Sequence[str]) -> bytes:
        """Return canonical JSON (sorted, compact, UTF-8) for a LoRA on exactly these modules."""
        fields = {
            "base_model_name_or_path": base.name,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "lora_alpha": int(self.alpha) if float(self.alpha).is_integer() else self.alpha,
            "peft_type": "LORA",
            "r": self.rank,
            "target_modules": shortest_targets(base, modules),
            "task_type": "CAUSAL_LM",
            "use_rslora": self.use_rslora,
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def parse_config(data: bytes, *, max_bytes: int, max_rank: int) -> AdapterConfig:
    """Return the checked config. Raises `Error` INVALID, param `adapter_config`."""
    if len(data) > max_bytes:
        raise _refusal(f"adapter_config.json is {len(data)} bytes; at most {max_bytes} are read.")
    try:
        fields = parse_object(data, max_values=_MAX_VALUES)
    except Malformed as error:
        raise _refusal(f"adapter_config.json {error}.") from error
    if fields.get("peft_type") != "LORA":
        raise _refusal(f"peft_type must be LORA, not {shown(fields.get('peft_type'))}.")
    _refuse_unsupported(fields)
    rank = fields.get("r")
    if type(rank) is not int or not 1 <= rank <= max_rank:
        raise _refusal(f"r must be an integer from 1 to {max_rank}, not {shown(rank)}.")
    alpha = fields.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= _MAX_ALPHA:
        raise _refusal(f"lora_alpha must be above 0 and at most {_MAX_ALPHA}, not {shown(alpha)}.")
    use_rslora = fields.get("use_rslora") or False
    if not isinstance(use_rslora, bool):
        raise _refusal("use_rslora must be true or false.")
    _require_uniform(fields, "rank_pattern", rank)
    _require_uniform(fields, "alpha_pattern", alpha)
    return AdapterConfig(rank, alpha, use_rslora, _targets(fields.get("target_modules")))


def expected_modules(config: AdapterConfig, base: BaseShape) -> frozenset[str] | None:
    """Return the base's modules that the config targets, or None for a pattern.

    Raises `Error` for a target that the base lacks.
    """
    if config.targets is None:
        return None
    by_suffix: dict[str, list[str]] = {}
    for module in base.modules:
        parts = module.split(".")
        for start in range(len(parts)):
            by_suffix.setdefault(".".join(parts[start:]), []).append(module)
    unknown = [target for target in config.targets if target not in by_suffix]
    if unknown:
        named = ", ".join(shown(target) for target in unknown[:_MAX_SHOWN_TARGETS])
        raise _refusal(
            f"target_modules names {named}, which is no linear layer of the base {base.name}. "
            "Was the adapter trained on another base, or with lm_head or embeddings?"
        )
    return frozenset(module for target in config.targets for module in by_suffix[target])


def shortest_targets(base: BaseShape, modules: Sequence[str]) -> list[str]:
    """Return the modules' last names if those mean exactly these modules, else their full paths."""
    leaves = {module.rpartition(".")[2] for module in modules}
    meant = {module for module in base.modules if module.rpartition(".")[2] in leaves}
    return sorted(leaves) if meant == set(modules) else sorted(modules)


def _refuse_unsupported(fields: dict[str, object]) -> None:
    start = fields.get("init_lora_weights")
    plain = start is None or isinstance(start, bool)
    if not plain and not (isinstance(start, str) and start in ADAPTER_ONLY_STARTS):
        raise _refusal(
            f"init_lora_weights {shown(start)} changes the base's weights as well; let peft convert "
            "the adapter (path_initial_model_for_weight_conversion) when saving it."
        )
    if fields.get("task_type") not in (None, "CAUSAL_LM"):
        raise _refusal(f"task_type must be CAUSAL_LM, not {shown(fields['task_type'])}.")
    for name, value in fields.items():
        if name in HARMLESS_FIELDS or name in _CHECKED_FIELDS or value in _OFF:
            continue
        if (name, value) == ("bias", "none"):
            continue
        hint = _HINTS.get(name, "only plain LoRA adapters can be imported; leave it unset")
        raise _refusal(f"{shown(name)} is set to {shown(value)}: {hint}.")


def _require_uniform(fields: dict[str, object], name: str, value: float) -> None:
    pattern = fields.get(name) or {}
    if not isinstance(pattern, dict) or any(v != value for v in pattern.values()):
        raise _refusal(f"{name} must be empty: one rank and one alpha hold for all modules.")


def _targets(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str) and value:
        # "all-linear", or a regular expression, which we do not evaluate: the weights show what it matched.
        return None
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise _refusal("target_modules must be a list of module names.")
    return tuple(value)


def _refusal(message: str) -> Error:
    return Error(Kind.INVALID, message, param="adapter_config", code="invalid_adapter")
