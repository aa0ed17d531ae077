"""Spellings of options, in vocabularies that cut them in different places."""

import math

import pytest

from constitutional_ai.engines.spelling import begun, log_sum, spellings


def cut(*words: str):
    """A tokenizer that takes the longest of these words, or else one letter; ids are hashes."""

    def spelt(text: str) -> list[int]:
        ids = []
        while text:
            word = max((w for w in (*words, text[0]) if text.startswith(w)), key=len)
            ids.append(sum(ord(letter) * 1000**n for n, letter in enumerate(word)))
            text = text[len(word) :]
        return ids

    return spelt


def ids(*words: str) -> tuple[int, ...]:
    return tuple(cut(*words)(word)[0] for word in words)


def test_where_a_bracket_and_a_letter_are_one_token_nothing_is_forced() -> None:
    found = begun(["(A)", "(B)"], cut("(A", "(B", " A", " B"))
    assert found.opening == ()
    (place,) = found.places
    assert [set(of) for of in place] == [set(ids("(A", "A", " A")), set(ids("(B", "B", " B"))]


def test_where_the_bracket_is_a_token_the_letter_behind_it_counts_too() -> None:
    found = begun(["(A)", "(B)"], cut(" A", " B"))
    assert found.opening == ids("(")
    assert [[set(of) for of in place] for place in found.places] == [
        [set(ids("A", " A")), set(ids("B", " B"))],
        [set(ids("A")), set(ids("B"))],
    ]
    assert set(found.tokens(0)) == set(ids("A", " A", "B", " B", "("))
    a, space_a, b, space_b = (ids(word)[0] for word in ("A", " A", "B", " B"))
    first = {a: 0.1, space_a: 0.05, b: 0.2, space_b: 0.01, ids("(")[0]: 0.5}
    behind = {a: 0.7, b: 0.3}
    logs = [{i: math.log(p) for i, p in of.items()} for of in (first, behind)]
    assert [math.exp(v) for v in found.logprobs(logs)] == pytest.approx(
        [0.1 + 0.05 + 0.5 * 0.7, 0.2 + 0.01 + 0.5 * 0.3]
    )


def test_a_token_that_may_begin_several_options_counts_for_none() -> None:
    found = begun(["yes", "Yes"], cut("yes", "Yes", " yes", " Yes"))
    assert found.places == ((ids("yes"), ids("Yes")),)  # " yes" could be either


def test_a_piece_of_a_word_counts_only_in_the_options_own_spelling() -> None:
    found = begun(["unsafe", "safe"], cut("uns", "afe", "safe", "Un", " un"))
    assert found.places == ((ids("uns"), ids("safe")),)


@pytest.mark.parametrize("options", [["1", "10"], ["A", "A"], ["(A)", "(A) or"]])
def test_options_that_do_not_differ_are_refused(options: list[str]) -> None:
    with pytest.raises(ValueError, match="must differ"):
        begun(options, cut())


def test_a_letter_keeps_its_case_and_a_word_does_not() -> None:
    assert " a" not in spellings("(A)")
    assert {"Yes", " yes", "**yes"} <= set(spellings("yes"))


def test_one_value_comes_back_as_it_is() -> None:
    assert log_sum([-0.1]) == -0.1
    assert log_sum([]) == -math.inf
    assert log_sum([-1000.0, -1000.0]) == pytest.approx(-1000 + math.log(2))
