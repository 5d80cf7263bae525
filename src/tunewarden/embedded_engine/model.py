"""A base from a local Hugging Face directory, its tokenizer, and the adapters in its slots."""

import inspect
import logging
import threading
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tunewarden.chat_templates import tool_format
from tunewarden.embedded_engine import kv_cache as kv
from tunewarden.embedded_engine.adapter_files import AdapterWeights
from tunewarden.embedded_engine.constraints import Compiler, Constraint, Matcher
from tunewarden.embedded_engine.logprobs import TokenNames
from tunewarden.embedded_engine.lora import BASE_SLOT, Interrupted, Selection, use, wrap_linears
from tunewarden.embedded_engine.tool_grammars import is_special, tool_constraint
from tunewarden.embedded_engine.tools import Tools
from tunewarden.engine_protocol.codes import Code
from tunewarden.errors import Error, Kind

transformers_logging.disable_progress_bar()
logger = logging.getLogger(__name__)

CONTEXT_DEFAULT = 2048
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class Precision(StrEnum):
    """The dtype a base computes in. AUTO: bfloat16 if it is stored so and the CPU has instructions for it.

    Only float32 guarantees results independent of the batch (docs/decisions/0010).
    """

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    AUTO = "auto"

    def of(self, stored: torch.dtype | None) -> torch.dtype:
        """Return the dtype for a base stored in `stored`."""
        if self is Precision.AUTO:
            is_fit = stored is torch.bfloat16 and torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001  torch has no public one
            return torch.bfloat16 if is_fit else torch.float32
        return torch.bfloat16 if self is Precision.BFLOAT16 else torch.float32


class Base:
    """A causal language model with adapter slots. Not thread-safe."""

    def __init__(self, path: Path, precision: Precision = Precision.FLOAT32) -> None:
        """Load from `path`. Raises Error(INVALID) if the directory cannot be served.

        Never goes to the network, never runs code from the directory, reads safetensors only.
        """
        self.tokenizer = _load_tokenizer(path)
        self._model = _load_model(path, precision)
        self._cache_name = _cache_parameter(self._model)
        config = self._model.config.get_text_config()
        self.context = int(getattr(config, "max_position_embeddings", None) or CONTEXT_DEFAULT)
        self.vocabulary = int(config.vocab_size)
        # In bytes, an upper bound: byte-level vocabularies use up to two characters per byte.
        self.longest_token = max((len(t.encode()) for t in self.tokenizer.get_vocab()), default=1)
        self.token_names = TokenNames(self.tokenizer)
        self.tool_format = tool_format(self.tokenizer)
        marks = self._find_call_marks()
        self._hidden_marks = {token: one.content for token, one in marks.items() if one.special}
        self._grammar_marks = {
            token: one.content for token, one in marks.items() if is_special(one)
        }
        self.end_tokens = self._find_end_tokens()
        self._compiler = _compiler(self.tokenizer, self.vocabulary, self.end_tokens)
        self.layers = wrap_linears(self._model, leave=self._model.get_output_embeddings())
        self._check_by_running()

    @torch.inference_mode()
    def forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        cache: Any,
        selection: Selection,
        urgent: threading.Event | None = None,
        *,
        logits_of_all: bool = False,
    ) -> torch.Tensor:
        """Append ids [rows, tokens] to the cache; return the last column's logits [rows, vocabulary].

        Those of all its columns [rows, tokens, vocabulary] if wanted.

        `mask` [rows, columns] is 0 where a row is padded on the left, for all columns up to now. Logits are
        float32. Raises Interrupted, the cache as it was, soon after `urgent` is set.
        """
        use(self.layers, selection, urgent)
        tokens = ids.shape[1]
        is_padded = not bool(mask[:, 0].all())
        positions = (mask.cumsum(1)[:, -tokens:] - 1).clamp(min=0)
        try:
            output = self._model(
                input_ids=ids,
                attention_mask=mask if is_padded else None,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=tokens if logits_of_all else 1,
                **{self._cache_name: cache},
            )
        except Interrupted:
            kv.crop(cache, mask.shape[1] - tokens)
            raise
        logits: torch.Tensor = output.logits.float()
        return logits if logits_of_all else logits[:, -1]

    @property
    def text_bytes_max(self) -> int:
        """An upper bound of the bytes of text that fit into the context."""
        return self.context * self.longest_token

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids without special tokens."""
        text: str = self.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def decode_with_calls(self, ids: Sequence[int]) -> str:
        """Return the text of token ids without special tokens, but with those that mark calls of tools."""
        texts, begin = [], 0
        for at, token in enumerate(ids):
            if token in self._hidden_marks:
                texts += [self.decode(ids[begin:at]), self._hidden_marks[token]]
                begin = at + 1
        return "".join([*texts, self.decode(ids[begin:])])

    def decode_long(self, ids: Sequence[int]) -> str:
        """Return the text of token ids with special tokens, without holding the GIL."""
        # `decode` keeps the GIL, `decode_batch` does not.
        text: str = self.tokenizer.backend_tokenizer.decode_batch([ids], skip_special_tokens=False)[
            0
        ]
        return text

    def tool_constraint(self, tools: Tools, answer: Constraint | None) -> Constraint | None:
        """Return what answers to a request with tools must look like, if not anything. Raises Error(INVALID).

        `answer` is what those without calls must.
        """
        return tool_constraint(tools, self.tool_format, self._grammar_marks, answer)

    def compile(self, constraint: Constraint, asked_by: str = "") -> Matcher:
        """Return a matcher of an organization's answers; slow. Thread-safe. Raises Error(INVALID)."""
        if self._compiler is None:
            message = "The tokenizer of this model cannot be held to a format."
            raise Error(Kind.INVALID, message, param=constraint.param, code="unsupported_parameter")
        return self._compiler.compile(constraint, asked_by)

    def close(self) -> None:
        """End what was started for this base."""
        if self._compiler is not None:
            self._compiler.close()

    @torch.inference_mode()
    def write(self, slot: int, adapter: AdapterWeights) -> None:
        """Write an adapter into a slot. Raises Error(INVALID), and then the slot is zero."""
        for name, pair in adapter.pairs.items():
            layer = self.layers.get(name)
            if layer is None:
                raise Error(
                    Kind.INVALID,
                    f"The adapter cannot be served: the base has no linear layer `{name}`.",
                    param="path",
                    code=Code.INVALID_ADAPTER,
                )
            weight = layer.base.weight
            if pair.a.shape[1] != weight.shape[1] or pair.b.shape[0] != weight.shape[0]:
                raise Error(
                    Kind.INVALID,
                    f"The adapter cannot be served: the shape of `{name}` does not fit the base.",
                    param="path",
                    code=Code.INVALID_ADAPTER,
                )
        for name, pair in adapter.pairs.items():
            scaled = pair.b * adapter.scale
            self.layers[name].write(slot, pair.a, scaled)
            scaled.zero_()

    @torch.inference_mode()
    def erase(self, slot: int) -> None:
        """Overwrite a slot's weights with zeros in every layer."""
        for layer in self.layers.values():
            layer.erase(slot)

    def residue(self, slot: int) -> float:
        """Return the sum of absolute weights in a slot over all layers: 0.0 after `erase`."""
        return sum(layer.residue(slot) for layer in self.layers.values())

    def _find_end_tokens(self) -> frozenset[int]:
        generation = getattr(self._model, "generation_config", None)
        found: set[int] = set()
        for source in (generation, self._model.config, self.tokenizer):
            ends = getattr(source, "eos_token_id", None)
            if ends is not None:
                found.update([ends] if isinstance(ends, int) else ends)
        return frozenset(found)

    def _find_call_marks(self) -> dict[int, Any]:
        """Return the tokens that mark calls of tools, of those that were added to the tokenizer's vocabulary."""
        marks = self.tool_format.marks if self.tool_format else ()
        added = self.tokenizer.added_tokens_decoder
        return {token: one for token, one in added.items() if one.content in marks}

    def _check_by_running(self) -> None:
        """Run two rows of different lengths once: checks that the cache is plain attention's, and warms up."""
        cache = kv.new_cache()
        try:
            self.forward(
                torch.zeros(2, 3, dtype=torch.long),
                torch.tensor([[1, 1, 1], [0, 1, 1]]),
                cache,
                Selection([BASE_SLOT, BASE_SLOT]),
            )
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            logger.warning("base refused", exc_info=error)
            raise _unservable("this architecture does not run in the embedded engine") from error
        if not kv.is_roomy(cache):
            raise _unservable("this architecture does not keep plain keys and values")


def _load_tokenizer(path: Path) -> Any:
    if not (path / "config.json").is_file():
        raise _unservable("the directory has no config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **LOCAL)
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        logger.warning("tokenizer refused", exc_info=error)
        raise _unservable("its tokenizer could not be loaded") from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise _unservable("its tokenizer is not a fast one (tokenizer.json)")
    return tokenizer


def _compiler(tokenizer: Any, vocabulary: int, end_tokens: frozenset[int]) -> Compiler | None:
    """Return the compiler of constraints, or None for a tokenizer that llguidance does not take."""
    try:
        return Compiler(tokenizer.backend_tokenizer, vocabulary, sorted(end_tokens))
    except ValueError as error:
        logger.warning("no structured outputs with this tokenizer", exc_info=error)
        return None


def _load_model(path: Path, precision: Precision) -> Any:
    try:
        config = AutoConfig.from_pretrained(path, **LOCAL)
        dtype = precision.of(config.get_text_config().dtype)
        model = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=dtype, use_safetensors=True, **LOCAL
        )
    except (OSError, ValueError, KeyError, ImportError, TypeError, RuntimeError) as error:
        logger.warning("base refused", exc_info=error)
        raise _unservable(
            "it needs a known causal language model in config.json and safetensors weights"
        ) from error
    return model.eval().requires_grad_(requires_grad=False)


def _cache_parameter(model: Any) -> str:
    """Return the name of the model's cache parameter: transformers renames `past_key_values` to `cache`."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _unservable(reason: str) -> Error:
    return Error(
        Kind.INVALID, f"The base cannot be served: {reason}.", param="path", code=Code.INVALID_BASE
    )
