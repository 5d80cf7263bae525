"""The demo's own tokenizer: byte-level BPE trained on the corpus, with a chat template."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunewarden.demo import corpus, weather
from tunewarden.demo.training import POOL, Example

VOCABULARY = 1024
CONTEXT = 2048
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
# As Hermes and Qwen mark calls. They are text, no special tokens, so that an engine that decodes an answer sees them.
CALL_MARKS = ("<tool_call>", "</tool_call>")

# Of the tools that are offered, the model is shown the one that it knows: its name, and its parameters' names.
# The generation markers tell a trainer which tokens are the assistant's (transformers, "chat templates").
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- for tool in tools or [] if tool['function']['name'] == 'TOOL' -%}"
    "<|system|>TOOL({{ ((tool['function']['parameters'] or {})['properties'] or {}) | join(', ') }}){{ eos_token }}"
    "{%- endfor -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "<|assistant|>{%- generation -%}{{ message['content'] }}"
    "{%- for call in message['tool_calls'] or [] -%}"
    "<tool_call>{{ '\n{\"name\": ' + call['function']['name'] | tojson + ', \"arguments\": ' }}"
    "{{ call['function']['arguments'] | tojson + '}\n' }}</tool_call>"
    "{%- endfor -%}"
    "{{ eos_token }}{%- endgeneration -%}"
    "{%- elif message['role'] == 'tool' -%}"
    "<|tool|>{{ message['content'] }}{{ eos_token }}"
    "{%- elif message['role'] in ['system', 'developer'] -%}"
    "<|system|>{{ message['content'] }}{{ eos_token }}"
    "{%- else -%}"
    "<|user|>{{ message['content'] }}{{ eos_token }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
).replace("TOOL", weather.TOOL)


def make_tokenizer() -> Any:
    """Train the tokenizer; return it as transformers wants it. Any bytes can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    # Names are the same tokens behind a blank and behind a quotation mark, so that they can be copied into calls.
    names = pre_tokenizers.Split(Regex("[A-Z][a-z]+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [names, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BEGIN, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.sentences(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.add_tokens(list(CALL_MARKS))
    fast.chat_template = CHAT_TEMPLATE
    return fast


def draw_examples(
    tokenizer: Any, *, seed: int, opening: str = "", count: int = POOL
) -> Sequence[Example]:
    """Draw conversations and mark the assistant's tokens as the ones to learn."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for _ in range(count):
        drawn = corpus.conversation(generator, opening)
        encoded = tokenizer.apply_chat_template(
            drawn.messages,
            tools=drawn.tools or None,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        learned = [bool(mark) for mark in encoded["assistant_masks"]]
        examples.append(Example(list(encoded["input_ids"]), learned))
    return examples


def plain_examples(tokenizer: Any) -> Sequence[Example]:
    """Return the answers as plain text, every token learned: what `/v1/completions` continues."""
    examples = []
    for _, answer in corpus.INTENTS:
        ids = [tokenizer.bos_token_id, *tokenizer.encode(answer), tokenizer.eos_token_id]
        examples.append(Example(ids, [True] * len(ids)))
    return examples
