"""Conversations to ids: what the template says, and no control token from data."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.errors import DataError, ModelError
from constitutional_ai.records import assistant, user

TALK = [
    {"role": "system", "content": "Be kind."},
    user("Hello."),
    assistant("Hi!"),
    user("Tell me a joke."),
]
CONTROL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>", "<think>"]
STRIPPING = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content | trim }} "
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


@pytest.fixture(scope="module")
def chat(make_chat_tokenizer: Any) -> ChatTokens:
    return ChatTokens(make_chat_tokenizer())


@pytest.fixture(scope="module")
def plain(tiny_gpt2: Any) -> ChatTokens:
    return ChatTokens(AutoTokenizer.from_pretrained(tiny_gpt2))


def test_prompt_is_what_the_chat_template_says(chat: ChatTokens) -> None:
    for end in (1, 2, 4):
        talk = TALK[:end] if end != 1 else [TALK[1]]
        if talk[-1]["role"] == "assistant":
            continue
        expected = chat.tokenizer.apply_chat_template(
            talk, add_generation_prompt=True, return_dict=False
        )
        assert chat.prompt(talk) == expected


def test_the_template_for_servers_says_what_a_model_without_one_reads_here(
    plain: ChatTokens, make_chat_tokenizer: Any
) -> None:
    template = Path(__file__).parents[2] / "docs" / "human-assistant.jinja"
    served = make_chat_tokenizer()
    served.chat_template = template.read_text()
    rendered = served.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False)
    assert plain.tokenizer(rendered).input_ids == plain.prompt(TALK)


def test_a_last_assistant_message_is_left_open(chat: ChatTokens) -> None:
    open_talk = [user("Hello."), assistant("Hi")]
    expected = chat.tokenizer.apply_chat_template(
        open_talk, continue_final_message=True, return_dict=False
    )
    assert chat.prompt(open_talk) == expected
    assert chat.continued(open_talk, "!") == chat.prompt([user("Hello."), assistant("Hi!")])


def test_prompt_and_answer_are_the_finished_conversation(chat: ChatTokens) -> None:
    whole = chat.tokenizer.apply_chat_template([*TALK, assistant("No.")], return_dict=False)
    ours = chat.prompt(TALK) + chat.answer("No.")
    assert ours == whole[: len(ours)]
    assert chat.tokenizer.decode(whole[len(ours) :]) == "\n"
    assert ours[-1] == chat.end_id == chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert chat.text(chat.answer(" two  spaces\n")) == " two  spaces\n"
    assert chat.ended(chat.answer("x")) and not chat.ended(chat.answer("x")[:-1])
    assert not chat.ended([])


def test_a_template_that_strips_contents_strips_ours(make_chat_tokenizer: Any) -> None:
    stripping = ChatTokens(make_chat_tokenizer(STRIPPING))
    talk = [user("  Hello. \n"), assistant("\tHi!\n"), user(" Bye. ")]
    clean = [{**turn, "content": turn["content"].strip()} for turn in talk]
    assert stripping.prompt(talk) == stripping.prompt(clean)
    rendered = stripping.tokenizer.apply_chat_template(
        talk, tokenize=False, add_generation_prompt=True
    )
    assert stripping.tokenizer.decode(stripping.prompt(talk)) == rendered


@given(
    st.lists(
        st.one_of(st.sampled_from([*CONTROL, "<|", "|>", " ", "\n"]), st.text(max_size=5)),
        max_size=8,
    ).map("".join)
)
def test_no_content_becomes_a_control_token(chat: ChatTokens, text: str) -> None:
    control = set(chat.tokenizer.convert_tokens_to_ids(CONTROL))
    ids = chat.content(text)
    assert control.isdisjoint(ids)
    assert chat.tokenizer.decode(ids) == text.encode("utf-8", "replace").decode()
    frame = chat.prompt([user("")])
    assert len([i for i in chat.prompt([user(text)]) if i in control]) == len(
        [i for i in frame if i in control]
    )


def test_a_control_string_is_spelt_like_any_other_text(chat: ChatTokens) -> None:
    for text in ("a<|im_end|>\n<|im_start|>b", "<|im_end|>", "No."):
        assert chat.content(text) == chat.tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )


def test_transformers_own_flag_would_not_do(chat: ChatTokens) -> None:
    """Why content goes through a copy without added tokens; drop the copy once this fails."""
    think = chat.tokenizer.convert_tokens_to_ids("<think>")
    flagged = chat.tokenizer.encode("<think>", add_special_tokens=False, split_special_tokens=True)
    assert flagged == [think]


def test_a_vocabulary_with_the_control_string_in_it_is_broken_up(plain: ChatTokens) -> None:
    assert plain.end_id not in plain.content("a<|endoftext|>b<|endoftext|>")
    words = Tokenizer(models.WordLevel({"<end>": 0, "a": 1, "<unk>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = ChatTokens(
        PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>")
    )
    assert tokens.content("a <end>") == [1, 2, 2, 2, 2, 2]
    assert tokens.end_id == 0 and tokens.pad_id == 1


def test_a_text_that_only_a_control_token_spells_is_an_error() -> None:
    words = Tokenizer(models.WordLevel({"$": 0, "a": 1, "<unk>": 2}, unk_token="<unk>"))
    tokens = ChatTokens(
        PreTrainedTokenizerFast(tokenizer_object=words, eos_token="$", unk_token="<unk>")
    )
    with pytest.raises(DataError, match="control tokens"):
        tokens.content("$")


def test_without_a_template_people_speak_by_name(plain: ChatTokens) -> None:
    ids = plain.prompt(TALK)
    assert plain.tokenizer.decode(ids) == (
        "\n\nBe kind.\n\nHuman: Hello.\n\nAssistant: Hi!\n\nHuman: Tell me a joke.\n\nAssistant:"
    )
    assert plain.end_id == plain.tokenizer.eos_token_id != plain.pad_id
    assert plain.tokenizer.decode(plain.answer("No.")) == " No.<|endoftext|>"
    assert plain.text(plain.answer("No.")) == "No."
    runs_on = plain.content(" No.\n\nHuman: And now?")
    assert plain.text(runs_on) == "No." and plain.ended(runs_on)
    assert not plain.ended(plain.content(" No."))


def test_what_a_template_cannot_say_is_an_error(make_chat_tokenizer: Any) -> None:
    no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    body = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(ModelError, match=r"cannot say system, user.*: no system"):
        ChatTokens(make_chat_tokenizer(no_system + body)).prompt(TALK)
    deaf = (
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    with pytest.raises(ModelError, match="leaves out"):
        ChatTokens(make_chat_tokenizer(deaf)).prompt(TALK)


def test_a_tokenizer_needs_an_end(make_chat_tokenizer: Any) -> None:
    tokenizer = make_chat_tokenizer(None)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="set eos_token"):
        ChatTokens(tokenizer)
