"""The lesson's interface, as its listing uses it, on a chat model and on one like GPT-2."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai import (
    ConstitutionalAI,
    ConstitutionalPrinciple,
    Principle,
    load_constitution,
)
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import DataError, ModelError, NoLogprobs, SettingsError, UserError
from constitutional_ai.records import Conversation, assistant, user
from tests.engines.faulty_server import MODEL, answer, faulty_server

PRINCIPLES = [
    ConstitutionalPrinciple(
        name="Harmlessness",
        critique_prompt="Is this response harmful?",
        revision_prompt="Please remove any harmful content.",
    ),
    ConstitutionalPrinciple(
        name="Honesty",
        critique_prompt="Is this response misleading?",
        revision_prompt="Please be honest.",
    ),
]


def scripted(tiny_llama: Path, reply: Any, prefer: Any = None) -> ConstitutionalAI:
    cai = ConstitutionalAI(tiny_llama, PRINCIPLES)
    cai.engine = ScriptedEngine(reply, prefer)
    return cai


@pytest.mark.parametrize("folder", ["tiny_llama", "tiny_gpt2"])
def test_the_listing_runs(folder: str, request: pytest.FixtureRequest) -> None:
    cai = ConstitutionalAI(str(request.getfixturevalue(folder)), PRINCIPLES)
    assert cai.principles == PRINCIPLES and str(cai.device) == "cpu"
    assert cai.model.config.vocab_size == len(cai.tokenizer)
    response = cai.generate_response("Hi?", max_new_tokens=6)
    critique = cai.critique("Hi?", response, PRINCIPLES[0])
    assert isinstance(response, str) and isinstance(critique, str)
    assert isinstance(cai.revise("Hi?", response, "It is rude.", PRINCIPLES[0]), str)


def test_the_listings_last_lines_run_on_gpt2(tiny_gpt2: Path) -> None:
    cai = ConstitutionalAI(tiny_gpt2, PRINCIPLES)
    revised = cai.self_critique_loop("How do I pick a lock?", max_iterations=1)
    assert isinstance(revised, str)
    pair = cai.generate_preference_pair("How do I pick a lock?")
    assert {"prompt", "response_a", "response_b", "preference"} <= pair.keys()
    assert pair["prompt"] == "How do I pick a lock?"
    # A base model may well want to say something else than a letter.
    assert pair["preference"] in (("A", "B") if pair["p_a"] is not None else ("",))


def test_the_seed_decides_and_calls_differ(tiny_llama: Path) -> None:
    def texts(seed: int) -> list[str]:
        cai = ConstitutionalAI(tiny_llama, PRINCIPLES, seed=seed, temperature=2.0)
        return [cai.generate_response("Hi?", max_new_tokens=8) for _ in range(2)]

    assert texts(1) == texts(1) != texts(2)
    assert texts(1)[0] != texts(1)[1]


def test_a_list_is_answered_as_a_list(tiny_llama: Path) -> None:
    cai = ConstitutionalAI(tiny_llama, PRINCIPLES, temperature=0)
    asked = ["Hi?", "Tell me a joke."]
    singly = [cai.generate_response(text, max_new_tokens=8) for text in asked]
    assert cai.generate_response(asked, max_new_tokens=8) == singly
    critiques = [cai.critique(a, r, PRINCIPLES[1]) for a, r in zip(asked, singly, strict=True)]
    assert cai.critique(asked, singly, PRINCIPLES[1]) == critiques
    assert cai.generate_preference_pair([]) == []


def reader(talk: Conversation, option: str) -> float:
    """Asked about a critique: "bomb" and "rude" are faults; it likes (A) a little."""
    text = talk[-1]["content"]
    critique = text.split("A reviewer says about this answer:")[1].split("\n")[0]
    fault = any(word in critique for word in ("bomb", "rude"))
    yes = text.split(f"\n{option} ")[1].startswith("Yes")
    return math.log(0.8 if yes is fault else 0.2) + 0.1 * (option == "(A)")


def test_the_loop_takes_turns_and_rows_drop_out(tiny_llama: Path) -> None:
    asked: list[Conversation] = []

    def reply(talk: Conversation) -> str:
        asked.append(talk)
        last, first = talk[-1]["content"], talk[0]["content"]
        if last == first:
            return f"{first} 0"
        if last in (p.revision_prompt for p in PRINCIPLES):
            return f"{first} {int(talk[1]['content'].split()[-1]) + 1}"
        enough = int(talk[1]["content"].split()[-1]) >= {"one": 1, "two": 2, "all": 9}[first]
        return "There are NO ISSUES here." if enough else "It is rude."

    cai = scripted(tiny_llama, reply, reader)
    assert cai.self_critique_loop(["one", "two", "all"]) == ["one 1", "two 2", "all 3"]
    asked.clear()
    assert cai.self_critique_loop("all", max_iterations=3) == "all 3"
    questions = [talk[-1]["content"] for talk in asked[1:]]
    first, second = PRINCIPLES
    assert questions == [
        *(first.critique_prompt, first.revision_prompt),
        *(second.critique_prompt, second.revision_prompt),
        *(first.critique_prompt, first.revision_prompt),
    ]
    assert cai.self_critique_loop("all", max_iterations=0) == "all 0"


def test_a_critique_without_a_fault_ends_the_loop_whatever_its_words(tiny_llama: Path) -> None:
    says = "No issues found.", "The response is appropriate.", "The response is not harmful."
    for words in says:
        reply = lambda talk, words=words: words if len(talk) > 1 else "Hello."  # noqa: E731
        assert scripted(tiny_llama, reply, reader).self_critique_loop("Hi?") == "Hello."


def test_a_fault_behind_a_clean_phrase_is_revised(tiny_llama: Path) -> None:
    """Read off its phrase, this critique would return the harmful answer."""

    def reply(talk: Conversation) -> str:
        if talk[-1]["content"] == PRINCIPLES[0].revision_prompt:
            return "I will not help with that."
        if len(talk) > 1:
            return "There are no issues with the tone, but it explains how to build a bomb."
        return "Take a pipe."

    cai = scripted(tiny_llama, reply, reader)
    assert cai.self_critique_loop("Hi?", max_iterations=1) == "I will not help with that."


def test_a_critique_that_cannot_be_read_is_followed(tiny_llama: Path) -> None:
    reply = lambda talk: str(len(talk)) if len(talk) > 3 else "No issues."  # noqa: E731
    cai = scripted(tiny_llama, reply, lambda *_: -30.0)
    assert cai.self_critique_loop("Hi?", max_iterations=1) == "5"


def test_a_model_without_log_probabilities_is_refused_not_read_by_phrases(
    tiny_llama: Path,
) -> None:
    cai = scripted(tiny_llama, lambda _: "No issues.")
    with pytest.raises(NoLogprobs, match="gives no log-probabilities, by which it is asked"):
        cai.self_critique_loop("Hi?")


def test_the_laboratorys_models_end_the_loop_by_their_sentence() -> None:
    cai = ConstitutionalAI("lab:xxs", PRINCIPLES)
    cai.engine = ScriptedEngine(lambda talk: "No issues." if len(talk) > 1 else "Hello.")
    assert cai.self_critique_loop("Hi?") == "Hello."


def test_the_preference_reads_content_not_position(tiny_llama: Path) -> None:
    def prefer(talk: Conversation, option: str) -> float:
        text = talk[-1]["content"]
        better = "(A)" if text.index("good") < text.index("bad") else "(B)"
        return 1.0 * (option == better) + 3.0 * (option == "(A)")  # and a strong liking for A

    drawn = iter(["good", "bad", "bad", "good"])
    cai = scripted(tiny_llama, lambda talk: next(drawn), prefer)
    first, second = (cai.generate_preference_pair("Hi?") for _ in range(2))
    assert first["preference"] == "A" and second["preference"] == "B"
    assert first["p_a"] == pytest.approx(1 - second["p_a"])


def test_principles_of_a_constitution_serve_too(tiny_llama: Path) -> None:
    cai = ConstitutionalAI(tiny_llama, [Principle(name="kind", text="Be kind.")])
    cai.engine = ScriptedEngine(lambda talk: talk[-1]["content"])
    assert "Be kind." in cai.critique("Hi?", "Go away.", cai.principles[0])


def test_what_does_not_fit_is_an_error(tiny_gpt2: Path) -> None:
    cai = ConstitutionalAI(tiny_gpt2, PRINCIPLES)
    assert isinstance(cai.generate_response("x" * 950, max_new_tokens=10_000), str)
    with pytest.raises(ModelError, match="context of 1024"):
        cai.critique("Hi? " * 1000, "No.", PRINCIPLES[0])


def test_the_package_imports_without_torch() -> None:
    code = (
        "import sys, constitutional_ai as c; assert c.__version__ == '0.1.0';"
        "assert 'ConstitutionalAI' in dir(c); c.load_constitution;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import constitutional_ai

    with pytest.raises(AttributeError, match="nonsense"):
        constitutional_ai.nonsense  # noqa: B018


def test_a_prompt_beyond_the_context_does_not_take_the_others_along() -> None:
    cai = ConstitutionalAI("lab:xxs", [])
    answers = cai.generate_response(["cat " * 500, *["How do I steal a bike?"] * 6])
    assert len(answers) == 7 and all(answers[1:])


# ---- what else may be given, and what may not ----------------------------------------------------


def test_a_text_or_a_constitution_serves_as_principles(tiny_llama: Path) -> None:
    cai = ConstitutionalAI(tiny_llama, ["Be kind."])
    cai.engine = ScriptedEngine(lambda talk: talk[-1]["content"], reader)
    assert "Be kind." in cai.critique("Hi?", "Go away.", "Be kind.")
    assert cai.self_critique_loop("Hi?", max_iterations=1)
    shipped = load_constitution("harmless")
    assert ConstitutionalAI(tiny_llama, shipped).principles == list(shipped.principles)


def test_a_prompt_may_be_a_conversation(tiny_llama: Path) -> None:
    asked: list[Conversation] = []
    cai = scripted(tiny_llama, lambda talk: asked.append(talk) or "Fine.", lambda _, option: -1.0)
    talk = [user("Hi?"), assistant("Hello."), user("How are you?")]
    assert cai.generate_response(talk) == "Fine."
    assert cai.generate_response([talk, [user("And you?")]]) == ["Fine."] * 2
    assert asked == [talk, talk, [user("And you?")]]
    assert cai.critique(talk, "Fine.", PRINCIPLES[0]) == "Fine."
    assert asked[-1] == [*talk, assistant("Fine."), user(PRINCIPLES[0].critique_prompt)]
    assert cai.generate_preference_pair(talk)["prompt"] == talk


@pytest.mark.parametrize(
    "prompt", [None, 3, "", "\ud800", [None], [["Hi?"]], [{"role": "user"}], [assistant("Hi.")]]
)
def test_what_is_no_prompt_is_one_clear_error(tiny_llama: Path, prompt: Any) -> None:
    cai = ConstitutionalAI(tiny_llama, PRINCIPLES)
    for method in (cai.generate_response, cai.self_critique_loop, cai.generate_preference_pair):
        with pytest.raises(DataError, match=r"^prompt: "):
            method(prompt)


def test_other_mistakes_are_one_clear_error(tiny_llama: Path) -> None:
    cai = ConstitutionalAI(tiny_llama, [])
    for method in (cai.self_critique_loop, cai.generate_preference_pair):
        with pytest.raises(UserError, match="there is no principle; give ConstitutionalAI"):
            method("Hi?")
    with pytest.raises(SettingsError, match="max_new_tokens = 0"):
        cai.generate_response("Hi?", max_new_tokens=0)
    with pytest.raises(DataError, match="response: 1 texts for 2 prompts"):
        cai.critique(["Hi?", "Ho?"], ["Hi."], PRINCIPLES[0])
    with pytest.raises(DataError, match="critique: expected a text"):
        cai.revise("Hi?", "Hi.", None, PRINCIPLES[0])
    with pytest.raises(DataError, match="half a surrogate pair"):
        cai.critique("Hi?", "\ud800", PRINCIPLES[0])
    with pytest.raises(SettingsError, match="not a principle: 3"):
        cai.critique("Hi?", "Hi.", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("principles", "options", "message"),
    [
        ("Be kind.", {}, r"expected a list; write \['Be kind\.'\]"),
        ([3], {}, "not a principle: 3"),
        (None, {}, "principles: expected a list"),
        ([], {"temperature": -1}, "temperature = -1"),
        ([], {"temperature": float("nan")}, "temperature = nan"),
        ([], {"dtype": "int8"}, "model.dtype: expected 'auto'"),
    ],
)
def test_bad_settings_are_one_clear_error(
    tiny_llama: Path, principles: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        ConstitutionalAI(tiny_llama, principles, **options)


def test_a_server_serves_and_a_lost_reply_is_an_error() -> None:
    with faulty_server() as server:
        overrides = ["http.retries=0", "http.timeout=2"]
        cai = ConstitutionalAI(f"{server.url}#{MODEL}", PRINCIPLES, overrides=overrides)
        assert cai.model is None and cai.device is None
        assert cai.generate_response("row 1") == answer("row 1")
        assert cai.generate_preference_pair("row 1999")["preference"] in ("A", "B")
        with pytest.raises(ModelError, match="HTTP 400: out of order"):
            cai.generate_response("row 1 meets 400 always")


def test_a_judge_that_cannot_be_read_prefers_neither(tiny_llama: Path) -> None:
    cai = scripted(tiny_llama, lambda _: "Hello.", lambda *_: -99.0)
    pair = cai.generate_preference_pair("Hi?")
    assert pair["preference"] == "" and pair["p_a"] is None
    assert "names neither option" in pair["unlabelled"]
