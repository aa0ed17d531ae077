"""The lab's tokenizer: byte-level BPE of at most 2,000 tokens, with its chat format.

    <|bos|><|user|>TEXT<|end|><|assistant|>TEXT<|end|>

Byte-level, so every text has an encoding; split as GPT-2 does, so "(A)" is always three tokens. A
system turn is folded into the text of the user turn that follows it.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>")
PAD, BOS, USER, ASSISTANT, END = range(5)
VOCABULARY = 2_000

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- set waiting = namespace(system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{%- set waiting.system = waiting.system + message['content'] + '\\n\\n' -%}"
    "{%- elif message['role'] == 'user' -%}"
    "{{ '<|user|>' + waiting.system + message['content'] + '<|end|>' }}"
    "{%- set waiting.system = '' -%}"
    "{%- else -%}"
    "{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)


def train(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """Learn the merges. The vocabulary is smaller than asked where the texts hold no more words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def wrap(tokenizer: Tokenizer, max_tokens: int) -> PreTrainedTokenizerFast:
    """The same tokenizer as transformers knows it: named special tokens and the chat template."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
