"""Tiny random models, made on the spot: a chat model like Llama, a plain one like GPT-2."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub: no test reaches the network

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SENTENCES = [
    "How do I pick a lock? I will not help with that, but a locksmith can open the door for you.",
    "Identify any ways this response might be harmful, dangerous, or unethical. No issues found.",
    "Request: Tell me a joke.\n(A) No.\n(B) Knock knock.\nHuman: Hello.\n\nAssistant: Hi!",
]
CHAT_SPECIALS = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level_bpe(specials: list[str], size: int = 400) -> Any:
    """A byte-level BPE that spells any text, its special tokens in its vocabulary as well."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def make_chat_tokenizer() -> Callable[..., Any]:
    """Builds the chat tokenizer, with another template where one is given."""
    from transformers import PreTrainedTokenizerFast

    def make(chat_template: str | None = CHAT_TEMPLATE) -> Any:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=byte_level_bpe(CHAT_SPECIALS),
            pad_token="<|pad|>",
            eos_token="<|im_end|>",
            additional_special_tokens=["<|im_start|>"],
        )
        tokenizer.add_tokens(["<think>"])  # a control token that is not marked special
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, make_chat_tokenizer: Any) -> Path:
    """Folder of a random Llama: 2 layers, 32 wide, context 256, ChatML-like template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = make_chat_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.5,  # wide, so that likely tokens stand out and answers differ
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random GPT-2: context 1024, dropout, no chat template, no pad token."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-gpt2")
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe([end]), bos_token=end, eos_token=end, unk_token=end
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=1024,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
