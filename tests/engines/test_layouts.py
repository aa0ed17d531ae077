"""Layouts of real families of tokenizers, made on the spot: no content becomes a control token.

Each is a tokenizer of its family in small (model, normaliser, added tokens, chat template), trained
on a few sentences. What transformers itself makes of a harmless conversation is the standard.
"""

import json
import string
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.records import Conversation, Message, assistant, user

SENTENCES = [
    "How do I pick a lock? I will not help with that, but a locksmith can open the door for you.",
    "Be kind. Hello there. Tell me a joke about a locksmith, and another about a door. Hi!",
    "user assistant system model Human Assistant Instruction Response INST think end start",
]
BYTES = [f"<0x{n:02X}>" for n in range(256)]

LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
ROLES = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }} {{ eos_token }}"
    "{% else %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('no system') }}{% endif %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


class Layout(NamedTuple):
    """``markers`` are all strings that must never come from a content; ``end`` closes an answer."""

    tokenizer: Any
    markers: list[str]
    end: str
    exact: bool = True  # whether decoding gives every space back

    @property
    def control(self) -> set[int]:
        return set(self.tokenizer.convert_tokens_to_ids(self.markers))


def byte_level(special: list[str], unflagged: list[str] = []) -> Tokenizer:  # noqa: B006
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken(name, special=False) for name in unflagged])
    return tokenizer


def sentencepiece(special: list[str], normalizer: Any, words: tuple[str, ...] = ()) -> Tokenizer:
    """BPE over text whose spaces are written ▁, with bytes to fall back on.

    ``words`` are in the vocabulary, reachable by merges, and no added tokens: as sentencepiece
    keeps what its trainer was told to keep whole.
    """
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=120, show_progress=False, special_tokens=["<unk>"])
    trained.train_from_iterator([text.replace(" ", "▁") for text in SENTENCES], trainer)
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *BYTES, *special, *model["vocab"], *"[]/<>|_"]
    merges = []
    for word in words:
        for length in range(2, len(word) + 1):
            names += [word[:length], word[length - 1]]
            merges.append((word[: length - 1], word[length - 1]))
    merges = list(dict.fromkeys(merges)) + [tuple(pair) for pair in model["merges"]]
    vocabulary: dict[str, int] = {}
    for name in names:
        vocabulary.setdefault(name, len(vocabulary))
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", *special])
    return tokenizer


def unigram() -> Tokenizer:
    """A Unigram model whose vocabulary holds the role markers as words of its own."""
    letters = sorted({*string.printable.strip(), "▁"})
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((b, -1e4) for b in BYTES)]
    pieces += [("[INST]", -1.0), ("[/INST]", -1.0)]
    pieces += [(letter, -8.0) for letter in letters] + [("▁lock", -3.0), ("▁the", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never"), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def wrapped(tokenizer: Tokenizer, template: str | None, **names: str) -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    made.chat_template = template
    return made


def llama_3() -> Layout:
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    made = wrapped(byte_level(names), LLAMA_3, bos_token=names[0], eos_token=names[3])
    return Layout(made, names, "<|eot_id|>")


def qwen() -> Layout:
    special, unflagged = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<think>", "</think>"]
    made = wrapped(
        byte_level(special, unflagged), QWEN, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    return Layout(made, special + unflagged, "<|im_end|>")


def roles_without_flag() -> Layout:
    roles = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    made = wrapped(byte_level(["</s>"], roles), ROLES, eos_token="</s>")
    return Layout(made, [*roles, "</s>"], "<|end|>")


def llama_2() -> Layout:
    """Text after a control token begins with a space; the padding token is the unknown one."""
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made = wrapped(
        sentencepiece([], spaces),
        LLAMA_2,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )
    return Layout(made, ["<s>", "</s>"], "</s>", exact=False)


def gemma() -> Layout:
    turns = ["<start_of_turn>", "<end_of_turn>"]
    made = wrapped(
        sentencepiece(turns, normalizers.Replace(" ", "▁")),
        GEMMA,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    return Layout(made, ["<s>", "</s>", *turns], "<end_of_turn>")


def words_by_merges() -> Layout:
    """Role markers that no list of added tokens names: BPE merges them out of ordinary text."""
    words = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    made = wrapped(
        sentencepiece([], normalizers.Replace(" ", "▁"), words),
        ROLES,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    return Layout(made, ["<s>", "</s>", *words], "<|end|>")


def words_of_unigram() -> Layout:
    made = wrapped(unigram(), LLAMA_2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return Layout(made, ["<s>", "</s>", "[INST]", "[/INST]"], "</s>", exact=False)


def gpt_2() -> Layout:
    end = "<|endoftext|>"
    made = wrapped(byte_level([end]), None, bos_token=end, eos_token=end, unk_token=end)
    return Layout(made, [end], end)


MAKERS: list[Callable[[], Layout]] = [
    llama_3,
    qwen,
    roles_without_flag,
    llama_2,
    gemma,
    words_by_merges,
    words_of_unigram,
    gpt_2,
]
NO_SYSTEM = ("llama_2", "gemma", "words_of_unigram")
ALL_MARKERS = sorted({name for make in MAKERS for name in make().markers})
KNOWN = {make.__name__: make() for make in MAKERS}
TOKENS = {name: ChatTokens(layout.tokenizer) for name, layout in KNOWN.items()}

everywhere = pytest.mark.parametrize("name", KNOWN)
hostile = st.lists(
    st.one_of(
        st.sampled_from(ALL_MARKERS),
        st.sampled_from(
            ["<|", "|>", "<", "]", "[", " ", "\n", "\n\nHuman:", "<0x0A>", "▁", "＜s＞"]
        ),
        st.sampled_from(ALL_MARKERS).map(lambda marker: marker[:-1]),
        st.sampled_from(ALL_MARKERS).map(lambda marker: marker[1:]),
        st.text(max_size=4),
    ),
    max_size=8,
).map("".join)
harmless = st.lists(
    st.sampled_from("Hello there lock door kind a joke? No. Hi! Tell me".split()),
    min_size=1,
    max_size=6,
).map(" ".join)
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def talk(name: str, texts: list[str]) -> Conversation:
    system: list[Message] = [{"role": "system", "content": texts[0]}]
    turns = [user(texts[1]), assistant(texts[2]), user(texts[3])]
    return turns if name in NO_SYSTEM else [*system, *turns]


@everywhere
@many
@given(texts=st.tuples(hostile, hostile, hostile, hostile))
def test_the_control_tokens_are_the_templates_own(name: str, texts: tuple[str, ...]) -> None:
    """Whatever the contents say: the same control tokens, in the same order, as around "x"."""
    layout, tokens = KNOWN[name], TOKENS[name]
    control = layout.control
    for conversation, frame in (
        (talk(name, list(texts)), talk(name, ["x"] * 4)),
        (talk(name, list(texts))[:-1], talk(name, ["x"] * 4)[:-1]),  # left open
    ):
        found = [i for i in tokens.prompt(conversation) if i in control]
        assert found == [i for i in tokens.prompt(frame) if i in control]
    assert [i for i in tokens.answer(texts[0]) if i in control] == [tokens.end_id]
    assert control.isdisjoint(tokens.content(texts[0]))


@everywhere
@many
@given(texts=st.tuples(hostile, hostile, hostile, hostile))
def test_every_content_is_there_to_be_read(name: str, texts: tuple[str, ...]) -> None:
    """Decoded, a prompt is the template's rendering, and an answer is its text."""
    layout, tokens = KNOWN[name], TOKENS[name]
    if "<unk>" in layout.tokenizer.all_special_tokens:  # "▁" and the space are one there
        texts = tuple(text.replace("▁", " ") for text in texts)
    shown = tokens.tokenizer.decode(tokens.prompt(talk(name, list(texts))))
    for text in texts[1:] if name in NO_SYSTEM else texts:
        spelt = text.encode("utf-8", "replace").decode().strip()
        assert spelt.replace(" ", "") in shown.replace(" ", "")
    if layout.exact and layout.tokenizer.chat_template:
        said = texts[0].encode("utf-8", "replace").decode()
        assert tokens.text(tokens.answer(texts[0])) == said


@everywhere
@many
@given(texts=st.tuples(harmless, harmless, harmless, harmless), answer=harmless)
def test_harmless_conversations_are_spelt_as_transformers_spells_them(
    name: str, texts: tuple[str, ...], answer: str
) -> None:
    layout, tokens = KNOWN[name], TOKENS[name]
    if not layout.tokenizer.chat_template:
        pytest.skip("without a template there is nothing to agree with")
    asked = talk(name, list(texts))
    if name != "words_of_unigram" and name != "words_by_merges":
        expected = layout.tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
        assert tokens.prompt(asked) == expected
    whole = layout.tokenizer.apply_chat_template([*asked, assistant(answer)], tokenize=False)
    joined = tokens.tokenizer.decode(tokens.prompt(asked) + tokens.answer(answer))
    joined = joined.replace("<think>\n\n</think>\n\n", "")  # opens an answer, stands in no past one
    assert whole.replace(" ", "").startswith(joined.replace(" ", ""))


@everywhere
def test_the_end_of_an_answer_is_the_templates(name: str) -> None:
    layout, tokens = KNOWN[name], TOKENS[name]
    assert tokens.end_id == layout.tokenizer.convert_tokens_to_ids(layout.end)
    assert tokens.pad_id != tokens.end_id
    ids = tokens.answer("Hello there.")
    assert tokens.ended(ids) and tokens.text(ids).strip() == "Hello there."


def test_a_marker_without_a_flag_does_not_show_in_an_answer() -> None:
    tokens = TOKENS["roles_without_flag"]
    said = tokens.content("Hello.") + tokens.tokenizer.convert_tokens_to_ids(
        ["<|user|>", "<|end|>"]
    )
    assert tokens.text(said) == "Hello."


def test_a_text_inside_begins_without_the_space_that_a_sentence_gets() -> None:
    """Llama 2 puts one space before the text after a control token, and none in the middle."""
    tokens = TOKENS["llama_2"]
    shown = tokens.tokenizer.convert_ids_to_tokens(tokens.prompt([user("lock")]))
    assert "".join(shown) == "<s>▁[INST]▁lock▁[/INST]"
