"""Constitutions: what derives, what is hashed, what is drawn, and errors with file and line."""

import random
from collections import Counter
from pathlib import Path

import pytest

from constitutional_ai import prompts as templates
from constitutional_ai.errors import ConstitutionError
from constitutional_ai.principles import (
    Constitution,
    Principle,
    load_constitution,
    weighted_sample,
)
from constitutional_ai.records import content_hash, user

SHIPPED = ("lab", "harmless", "red-team")
HEAD = 'name = "mine"\nversion = "1"\n'


def principle(name: str, text: str, more: str = "") -> str:
    return f'\n[[principle]]\nname = "{name}"\ntext = "{text}"\n{more}'


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: str | Path) -> str:
    with pytest.raises(ConstitutionError) as caught:
        load_constitution(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_ones_load_and_cover_both_phases(name: str) -> None:
    constitution = load_constitution(name)
    assert constitution.usable("critique", "red-team")
    assert constitution.usable("preference", "red-team")
    assert len({p.hash for p in constitution.principles}) == len(constitution.principles)


def test_the_harmless_constitution_has_sixteen_principles() -> None:
    assert len(load_constitution("harmless").principles) == 16


@pytest.mark.parametrize("kind", ["do", "dont"])
def test_prompts_derive_from_the_text_unless_they_are_written(kind: str) -> None:
    derived = Principle.model_validate(
        {"name": "n", "text": "TEXT.", "kind": kind, "critique_prompt": "Mine."}
    )
    assert derived.critique_prompt == "Mine."
    assert "TEXT." in derived.revision_prompt
    assert "TEXT." in derived.preference_prompt


def test_a_brace_in_the_text_is_text() -> None:
    assert "{x}" in Principle(name="n", text="Mind {x}.").critique_prompt


def test_hashes_follow_the_content() -> None:
    one, two = Principle(name="n", text="a"), Principle(name="n", text="b")
    assert one.hash == Principle(name="n", text="a").hash != two.hash
    whole = [Constitution(name="c", version="1", principles=(p,)).hash for p in (one, two)]
    assert whole[0] != whole[1]
    assert Constitution(name="c", version="2", principles=(one,)).hash not in whole


def test_draws_are_seeded_and_without_repetition() -> None:
    constitution = load_constitution("harmless")
    drawn = constitution.draw("critique", "red-team", 4, 0, "id")
    assert drawn == constitution.draw("critique", "red-team", 4, 0, "id")
    assert len({p.name for p in drawn}) == 4
    others = [constitution.draw("critique", "red-team", 4, 0, str(n)) for n in range(9)]
    assert any(other != drawn for other in others)
    assert len(constitution.draw("critique", "red-team", 99, 0)) == len(
        constitution.usable("critique", "red-team")
    )


def test_draws_follow_the_weights() -> None:
    pool = [Principle(name=str(w), text="t", weight=w) for w in (1.0, 3.0)]
    rng = random.Random(0)
    firsts = Counter(weighted_sample(pool, 1, rng)[0].name for _ in range(4000))
    assert firsts["3.0"] / 4000 == pytest.approx(0.75, abs=0.03)  # four standard errors


def test_a_principle_may_keep_to_a_phase_and_a_prompt_set(tmp_path: Path) -> None:
    more = 'use = ["critique"]\nprompts = ["red-team"]\n'
    constitution = load_constitution(write(tmp_path, HEAD + principle("a", "A.", more)))
    assert [p.name for p in constitution.usable("critique", "red-team")] == ["a"]
    with pytest.raises(ConstitutionError, match="no principle for preference of red-team"):
        constitution.draw("preference", "red-team", 1, 0)


def test_an_unknown_name_lists_the_known_ones() -> None:
    constitution = load_constitution("lab")
    first = constitution.principles[0]
    assert constitution.principle(first.name) == first
    with pytest.raises(ConstitutionError, match=f"it has: {first.name}"):
        constitution.principle("nobody")


def test_two_principles_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + principle("a", "A.") + principle("a", "B."))
    assert complaint(path).startswith(
        f"{path}:9: principle 'a': the name is already in line 5; rename"
    )


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, HEAD + principle("a", text))
    assert complaint(path).startswith(
        f"{path}:6: principle 'a': it has no text; write what it asks for"
    )


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("weigth = 2", ":7: principle 'a': unknown key 'weigth'; did you mean 'weight'?"),
        ("weight = 0", ":7: principle 'a': weight cannot be 0; write a number above 0"),
        ("weight = inf", ":7: principle 'a': weight cannot be inf; write a finite number"),
        ("weight = 1e300", ":7: principle 'a': weight cannot be 1e+300; write at most"),
        ('weight = "much"', ":7: principle 'a': weight cannot be 'much'; write a number"),
        ('kind = "never"', ":7: principle 'a': kind cannot be 'never'; write 'do' or 'dont'"),
        ('use = ["judge"]', ":7: principle 'a': use.0 cannot be 'judge'; write 'critique' or"),
    ],
)
def test_a_wrong_value_is_told_with_its_line_and_its_remedy(
    tmp_path: Path, line: str, rest: str
) -> None:
    path = write(tmp_path, HEAD + principle("a", "A.", f"{line}\n"))
    assert complaint(path).startswith(f"{path}{rest}")


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        ('name = "x"\n', ":1: version is missing; write version = …"),
        (HEAD + "extra = 1\n", ":3: unknown key 'extra'; the keys are: name, version"),
        (HEAD + "principles = []\n", ":3: unknown key 'principles'; did you mean 'principle'?"),
        (HEAD + "thoughts = 3\n", ":3: thoughts cannot be 3; write a list"),
        (
            HEAD + "[scale]\nprompt = 'p'\noptions = ['a', 'b']\nvalues = [1, 2, 3]\n",
            ":1: the scale has 2 options but 3 values; write a value for each option",
        ),
        (HEAD + "scale = { prompt = 'p', options = ['a', 'b'], values = [1, inf] }\n", ":3: scale"),
        (HEAD + "[[principle]\n", ":3: not valid TOML: "),
        (HEAD + f"thoughts = {'[' * 5000}\n", ":1: not valid TOML: nested too deeply"),
        (HEAD + f"extra = {'1' * 5000}\n", ":3: not valid TOML: too many digits"),
    ],
)
def test_a_wrong_head_is_told_with_its_line_and_its_remedy(
    tmp_path: Path, head: str, rest: str
) -> None:
    path = write(tmp_path, head + principle("a", "A."))
    message = complaint(path)
    assert message.startswith(str(path)) and rest in message


def test_a_file_without_principles_is_refused(tmp_path: Path) -> None:
    assert ":1: it has no principles; write [[principle]]" in complaint(write(tmp_path, HEAD))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such constitution" in complaint(tmp_path / "none.toml")
    assert "no such constitution" in complaint("labb")


@pytest.mark.parametrize(
    "text",
    [
        HEAD + '\n[[principle]]  # the first\nname = "a"\ntext = "A."\n',
        HEAD + '\n[[ principle ]]\nname = "a"\ntext = "A."\n',
        HEAD + 'principle = [{ name = "a", text = "A." }]\n',
    ],
)
def test_every_spelling_of_toml_is_read(tmp_path: Path, text: str) -> None:
    assert load_constitution(write(tmp_path, text)).principle("a").text == "A."


@pytest.mark.parametrize(
    "text", ["principle = 3\n", 'principle = ["a"]\n', "[principle]\nname = 'a'\n"]
)
def test_principles_that_are_no_tables_are_refused(tmp_path: Path, text: str) -> None:
    assert "mine.toml" in complaint(write(tmp_path, HEAD + text))


def test_fields_that_came_later_leave_old_hashes_alone() -> None:
    """The hash of 0.1 for this content; rows and reports carry it."""
    old = Principle(name="n", text="a")
    assert old.hash == content_hash(
        {k: v for k, v in old.model_dump().items() if k not in ("priority", "hard", "rationale")}
    )
    for update in ({"priority": 1}, {"hard": True}, {"rationale": "why"}):
        assert old.model_copy(update=update).hash != old.hash


# ---- the rationale, shown to models


TOLD = 'name = "mine"\nversion = "1"\nrationale = true\n'
WHY = 'rationale = "Trust is lost once."'


def asked(rule: Principle) -> list[str]:
    """All that a model is asked under a principle, in both forms of critique and revision."""
    talk, review = [user("Hi?")], templates.review("fence")
    requests = [
        *(form.critique(talk, "No.", rule) for form in (templates.DIALOGUE, review)),
        *(form.revision(talk, "No.", "Rude.", rule) for form in (templates.DIALOGUE, review)),
        *(form.direct(talk, "No.", rule) for form in (templates.DIALOGUE, review)),
        templates.comparison(talk, "No.", "Yes.", rule, "fence"),
        [user(templates.thought("{question}", rule))],
    ]
    return [turns[-1]["content"] for turns in requests]


def test_models_are_told_why_where_the_constitution_says_so(tmp_path: Path) -> None:
    rules = principle("kind", "Be kind.", WHY) + principle("brief", "Be brief.")
    silent, told = (load_constitution(write(tmp_path, head + rules)) for head in (HEAD, TOLD))
    assert not any("Why:" in text for text in asked(silent.principle("kind")))
    assert all("\nWhy: Trust is lost once." in text for text in asked(told.principle("kind")))
    # One without a rationale is asked as before, and named as before.
    assert told.principle("brief") == silent.principle("brief")
    assert told.principle("kind").hash != silent.principle("kind").hash
    assert told.hash != silent.hash


def test_a_silent_constitution_keeps_its_hash(tmp_path: Path) -> None:
    """As it was before the key came, with and without rationales, and where it says false."""
    rules = principle("kind", "Be kind.", WHY)
    path = write(tmp_path, HEAD + rules)
    assert load_constitution(path).hash == "568c803ec554d123"
    assert load_constitution(write(tmp_path, HEAD + "rationale = false\n" + rules)).hash == (
        "568c803ec554d123"
    )


def test_a_constitution_with_no_rationale_to_tell_is_refused(tmp_path: Path) -> None:
    text = complaint(write(tmp_path, TOLD + principle("kind", "Be kind.")))
    assert "mine.toml:" in text and "no principle has one to show; write rationale =" in text
    text = complaint(write(tmp_path, HEAD + 'rationale = "yes"\n' + principle("kind", "a", WHY)))
    assert "mine.toml:3: rationale cannot be 'yes'; write true or false" in text
