"""Lint: every planted fault is found where it stands, nothing is found in what we ship."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from constitutional_ai import principles as constitution
from constitutional_ai.constitution.findings import SEVERITY
from constitutional_ai.constitution.lint import failed, lint
from constitutional_ai.constitution.similarity import alike, embedded
from constitutional_ai.errors import ConstitutionError, ModelError
from tests.constitution.conftest import HEAD

Write = Callable[..., Path]

# A constitution without fault: each planted fault is put beside these.
SOUND = (
    'name = "names-sources"\ntext = "The answer should name the source of every figure in it."',
    'name = "mockery"\nkind = "dont"\n'
    'text = "Mocking the reader for a spelling mistake or a naive question."',
)
LONG = "Each sentence of a refund letter carries one amount, " * 12

# (rule, the principles planted, the line in the file on which the finding must stand)
FAULTS: list[tuple[str, tuple[str, ...], int]] = [
    ("name-collision", ('name = "Names_Sources"\ntext = "Steps of a recipe stand in order."',), 14),
    ("empty-text", ('name = "later"\ntext = "  "',), 15),
    ("short-text", ('name = "kind"\ntext = "Courteous tone."',), 15),
    ("long-text", (f'name = "letters"\ntext = "{LONG.strip()}"',), 15),
    (
        "placeholder",
        ('name = "shop"\ntext = "The answer should greet customers of {shop_name}."',),
        15,
    ),
    (
        "control-text",
        ('name = "ends"\ntext = "A recipe ends with its <|im_end|> serving size."',),
        15,
    ),
    (
        "refers-elsewhere",
        ('name = "also"\ntext = "Like principle 2, but for jokes on colleagues."',),
        15,
    ),
    ("vague", ('name = "good"\ntext = "The answer should be good and appropriate."',), 15),
    (
        "unjudgeable",
        ('name = "happy"\ntext = "After reading, the customer should feel valued by the bakery."',),
        15,
    ),
    (
        "loophole",
        ('name = "allergy"\ntext = "Recipes list allergens such as nuts where appropriate."',),
        15,
    ),
    (
        "inverted-dont",
        ('name = "dose"\nkind = "dont"\ntext = "Never give doses of a medicine for a child."',),
        16,
    ),
    ("negative-do", ('name = "dose"\ntext = "Do not give doses of a medicine for a child."',), 15),
    (
        "names-option",
        (
            'name = "brief"\ntext = "Recipes fit on a postcard."\n'
            'preference_prompt = "Is answer A briefer than the other one?"',
        ),
        16,
    ),
    (
        "names-position",
        (
            'name = "brief"\ntext = "Recipes fit on a postcard."\n'
            'preference_prompt = "Is the second response shorter?"',
        ),
        16,
    ),
    (
        "not-a-comparison",
        (
            'name = "brief"\ntext = "Recipes fit on a postcard."\n'
            'preference_prompt = "Does it fit on a postcard?"',
        ),
        16,
    ),
    (
        "critique-compares",
        (
            'name = "brief"\ntext = "Recipes fit on a postcard."\n'
            'critique_prompt = "Which response wastes words?"',
        ),
        16,
    ),
    (
        "unused-prompt",
        (
            'name = "brief"\ntext = "Recipes fit on a postcard."\nuse = ["preference"]\n'
            '# lint: ignore one-phase\ncritique_prompt = "Where does the recipe waste words?"',
        ),
        18,
    ),
    (
        "one-phase",
        ('name = "brief"\ntext = "Recipes fit on a postcard."\nuse = ["critique"]',),
        16,
    ),
    ("never-drawn", ('name = "brief"\ntext = "Recipes fit on a postcard."\nweight = 0.001',), 16),
    ("drowns-others", ('name = "brief"\ntext = "Recipes fit on a postcard."\nweight = 40',), 16),
    (
        "one-sided",
        (
            'name = "a"\nkind = "dont"\ntext = "Recipes without a serving size."',
            'name = "b"\nkind = "dont"\ntext = "Weather told without a place."',
            'name = "c"\nkind = "dont"\ntext = "Opening hours of closed shops."',
            'name = "d"\nkind = "dont"\ntext = "Train times from last season."',
        ),
        1,
    ),
    (
        "duplicate",
        ('name = "again"\ntext = "the answer should name the source of every figure in it"',),
        15,
    ),
    (
        "near-duplicate",
        ('name = "again"\ntext = "For every figure the answer should name its source."',),
        15,
    ),
    (
        "same-prompt",
        (
            'name = "brief"\ntext = "Recipes fit on a postcard."\n'
            'preference_prompt = "Which answer is easier to cook from?"',
            'name = "order"\ntext = "Steps come in the sequence of cooking."\n'
            'preference_prompt = "Which answer is easier to cook from?"',
        ),
        21,
    ),
    (
        "contradiction",
        (
            'name = "sorry"\ntext = "Always apologise for a late delivery."',
            'name = "proud"\nkind = "dont"\ntext = "Apologising for late deliveries."',
        ),
        20,
    ),
    ("no-critique", (), 1),
    ("no-preference", (), 1),
    (
        "unknown-rule",
        ('name = "brief"\ntext = "Recipes fit on a postcard."\n# lint: ignore vauge',),
        16,
    ),
    (
        "unused-ignore",
        ('name = "brief"\ntext = "Recipes fit on a postcard."\n# lint: ignore vague',),
        16,
    ),
    ("invalid", ('name = "brief"\ntext = "Recipes fit on a postcard."\nweigth = 2',), 16),
]


def planted(rule: str, faults: tuple[str, ...]) -> tuple[str, ...]:
    """The sound constitution with a fault in it; the phases' rules are broken in the sound part."""
    if rule in ("no-critique", "no-preference"):
        other = "preference" if rule == "no-critique" else "critique"
        return tuple(f'{p}\nuse = ["{other}"]\n# lint: ignore one-phase' for p in SOUND)
    if rule == "one-sided":
        return faults
    return (*SOUND, *faults)


def test_the_sound_constitution_is_sound(write: Write) -> None:
    assert lint(write(*SOUND)) == []


@pytest.mark.parametrize(("rule", "faults", "line"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_planted_fault_is_found_on_its_line_and_nothing_else(
    write: Write, rule: str, faults: tuple[str, ...], line: int
) -> None:
    path = write(*planted(rule, faults))
    found = lint(path)
    assert {finding.rule for finding in found} == {rule}
    finding = found[0]
    assert (finding.path, finding.line) == (str(path), line)
    assert finding.severity == SEVERITY[rule]
    assert finding.reason and finding.fix


def test_there_is_a_planted_fault_for_every_rule() -> None:
    assert {rule for rule, _, _ in FAULTS} == set(SEVERITY)
    assert len(FAULTS) >= 20


def test_twenty_faults_in_one_file_are_all_found(write: Write) -> None:
    """One each of twenty kinds that can stand together."""
    together = [f for f in FAULTS if f[0] not in ("drowns-others", "one-sided", "no-critique",
                "no-preference", "never-drawn", "unknown-rule", "unused-ignore", "invalid",
                "name-collision", "empty-text")]  # fmt: skip
    tables = list(SOUND)
    for rule, faults, _ in together:
        for number, fault in enumerate(faults):
            name = fault.split('"')[1]
            tables.append(fault.replace(f'"{name}"', f'"{rule}{number}"', 1))
    tables += [
        'name = "NAMES SOURCES"\ntext = "Maps carry a scale bar."',
        'name = "empty"\ntext = ""',
        'name = "rare"\ntext = "Poems keep to their metre."\nweight = 0.0001',
        'name = "typo"\ntext = "Songs name their composer."\nweigth = 2',
        'name = "rule"\ntext = "Atlases name rivers."\n# lint: ignore vauge',
    ]
    found = {finding.rule for finding in lint(write(*tables))}
    expected = {rule for rule, _, _ in together}
    expected |= {"name-collision", "empty-text", "never-drawn", "invalid", "unknown-rule"}
    assert len(expected) >= 20
    assert found >= expected


SHIPPED = ("lab", "harmless", "red-team", "customer-service")


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_is_found_in_what_we_ship(name: str) -> None:
    assert lint(name) == []


def test_the_laboratorys_split_is_the_only_thing_that_is_ignored() -> None:
    folder = Path(constitution.__file__).parent / "constitutions"
    lines = [line for file in folder.glob("*.toml") for line in file.read_text().splitlines()]
    assert [line.split(":")[1].strip() for line in lines if "lint: ignore" in line] == [
        "ignore one-phase"
    ]


SPARED = [
    # ordinary wording that looks like a fault
    'name = "a"\ntext = "The answer should state the user\'s legal rights in a rented flat."',
    'name = "a"\ntext = "A reasonable person would follow each of the steps without a manual."',
    'name = "a"\ntext = "The answer should be as short as the recipe allows."',
    'name = "a"\ntext = "Recipes say which option costs less."\n'
    'preference_prompt = "Which answer lists the better options for a vegetarian?"',
    'name = "a"\ntext = "The bread recipe states a first and a second rise."\n'
    'preference_prompt = "Which answer explains both rises more clearly?"',
    'name = "a"\ntext = "Vitamin A and B are told apart in recipes."\n'
    'preference_prompt = "Which answer tells vitamin A and vitamin B apart more clearly?"',
]


@pytest.mark.parametrize("spared", SPARED, ids=range(len(SPARED)))
def test_ordinary_wording_is_spared(write: Write, spared: str) -> None:
    assert [finding.text() for finding in lint(write(*SOUND, spared))] == []


@pytest.mark.parametrize(
    ("one", "other", "opposed"),
    [
        ("Always mention the price.", "Never mention the price.", True),
        ("The answer should be short.", "The answer should be long.", True),
        ("Prices include the tax.", "Prices omit the tax.", True),
        ("Avoid naming competitors.", "Name competitors.", True),
        ("Never mention the price.", "Do not mention prices.", False),
        ("Decline harmful requests.", "Answer harmless requests.", False),
        ("Mention the price.", "Mention the delivery date.", False),
        ("Never reveal a password.", "Always hide a password.", False),  # two turns cancel
    ],
)
def test_contradictions_are_told_from_agreement(
    write: Write, one: str, other: str, opposed: bool
) -> None:
    path = write(f'name = "a"\ntext = "{one}"', f'name = "b"\ntext = "{other}"')
    assert ("contradiction" in {finding.rule for finding in lint(path)}) == opposed


def test_principles_for_different_prompts_do_not_contradict(write: Write) -> None:
    one = 'name = "a"\ntext = "Always decline at once."\nprompts = ["red-team"]'
    other = 'name = "b"\nkind = "dont"\ntext = "Declining at once."\nprompts = ["helpful"]'
    assert "contradiction" not in {finding.rule for finding in lint(write(one, other))}


# ---- ignoring


def test_an_ignore_holds_for_its_principle_only(write: Write) -> None:
    vague = 'text = "The answer should be good and appropriate."'
    quiet = f'name = "a"\n{vague}\n# lint: ignore vague, duplicate: a test'
    loud = f'name = "b"\n{vague}'
    found = lint(write(*SOUND, quiet, loud))
    assert [(f.principle, f.rule) for f in found if f.rule != "unused-ignore"] == [
        ("b", "duplicate"),
        ("b", "vague"),
    ]


def test_an_ignore_on_top_holds_for_the_file(write: Write) -> None:
    head = HEAD + "# lint: ignore vague\n"
    path = write(*SOUND, 'name = "a"\ntext = "The answer should be good."', head=head)
    assert lint(path) == []


# ---- files that cannot be read


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (HEAD + "[[principle]\n", 3, "not valid TOML"),
        (HEAD, 1, "no principles"),
        (HEAD + "principle = 3\n", 1, "expected tables"),
        (HEAD + 'extra = 1\n[[principle]]\nname = "a"\ntext = "Maps have a scale."\n', 3, "extra"),
    ],
)
def test_a_file_that_does_not_load_is_a_finding(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    (finding,) = lint(path)
    assert (finding.rule, finding.line) == ("invalid", line)
    assert reason in finding.reason


def test_all_mistakes_of_a_file_are_told_at_once(write: Write) -> None:
    path = write(
        *SOUND,
        'name = "a"\ntext = "Maps have a scale."\nweight = 0',
        'name = "b"\ntext = "Maps have a north."\nkind = "maybe"',
    )
    assert [(f.rule, f.line) for f in lint(path)] == [("invalid", 16), ("invalid", 21)]


def test_a_missing_file_is_the_users_mistake() -> None:
    with pytest.raises(ConstitutionError, match="no such constitution"):
        lint("nowhere.toml")


# ---- the command


def test_exit_codes_are_for_ci(write: Write, cai: Any) -> None:
    warned = write(*SOUND, 'name = "a"\ntext = "The answer should be good."', name="warned")
    broken = write(*SOUND, 'name = "a"\ntext = ""', name="broken")
    assert "0 errors, 1 warnings" in cai("lint", warned).stdout
    cai("lint", warned, "--strict", code=1)
    result = cai("lint", warned, broken, code=1)
    assert f"{broken}:15: error[empty-text] a:" in result.stdout
    assert "    fix: write what it asks for" in result.stdout
    cai("lint", "none", code=2)


def test_findings_for_machines(write: Write, cai: Any) -> None:
    path = write(*SOUND, 'name = "a"\ntext = "The answer should be good."')
    (row,) = json.loads(cai("lint", path, "--json").stdout)
    assert row["rule"] == "vague"
    assert row["severity"] == "warning"
    assert (row["path"], row["line"], row["principle"]) == (str(path), 15, "a")


def test_failing_is_by_severity(write: Write) -> None:
    found = lint(write(*SOUND, 'name = "a"\ntext = "The answer should be good."'))
    assert not failed(found, strict=False)
    assert failed(found, strict=True)
    assert not failed([], strict=True)


# ---- similarity


def test_n_grams_agree_with_a_slow_count() -> None:
    """The word half of the measure, against scikit-learn's tf-idf with the same settings."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    from constitutional_ai.constitution import similarity

    texts = ["Name every price twice.", "Prices are named.", "Poems rhyme.", "Poems rhyme twice."]
    stems = [" ".join(similarity.content_stems(text)) for text in texts]
    oracle = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    table = oracle.fit_transform(stems).toarray()
    counts = [similarity._word_grams(text) for text in texts]
    np.testing.assert_allclose(similarity._cosine(counts), table @ table.T, atol=1e-12)
    assert np.allclose(np.diag(alike(texts)), 1)


def test_average_linkage_agrees_with_scipy() -> None:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    from constitutional_ai.constitution.similarity import clusters

    rng = np.random.default_rng(0)
    points = rng.random((14, 3))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    labels = fcluster(linkage(squareform(distance), "average"), 0.45, "distance")
    expected = {frozenset(np.flatnonzero(labels == label)) for label in set(labels)}
    assert {frozenset(group) for group in clusters(1 - distance, 1 - 0.45)} == expected
    assert 1 < len(expected) < 14


def test_a_models_states_find_what_is_near(tiny_llama: Path, write: Write) -> None:
    from constitutional_ai.engines.local import LocalEngine

    engine = LocalEngine(tiny_llama)
    table = embedded(engine, ["Maps have a scale.", "Maps have a scale.", "Dogs bark at night."])
    assert table[0, 1] == pytest.approx(1)
    assert table[0, 2] < 0.99
    path = write(*SOUND, 'name = "a"\ntext = "Poems keep to their metre."')
    assert lint(path, engine, near=-1.0) != lint(path, engine, near=1.01)


def test_an_engine_without_states_is_refused(write: Write) -> None:
    from constitutional_ai.engines.scripted import ScriptedEngine

    with pytest.raises(ModelError, match="hidden states"):
        lint(write(*SOUND), ScriptedEngine(reply=lambda _: ""))


def test_every_rule_is_in_the_documentation() -> None:
    page = Path(__file__).parents[2] / "docs" / "constitutions.md"
    text = page.read_text(encoding="utf-8")
    assert [rule for rule in SEVERITY if f"`{rule}`" not in text] == []
