"""Lint: every planted fault is found where it stands; nothing is found in what we ship."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitution.lint import SHOWN, failed, lint
from constitutional_ai.constitution.rules import SEVERITY
from constitutional_ai.errors import ConstitutionError
from tests.constitution.conftest import HEAD

Write = Callable[..., Path]

# A constitution without fault: each planted fault is put after these.
SOUND = (
    'name = "names-sources"\ntext = "The answer should name the source of every figure in it."',
    'name = "mockery"\nkind = "dont"\n'
    'text = "Mocking the reader for a spelling mistake or a naive question."',
)
BRIEF = 'name = "brief"\ntext = "Recipes fit on a postcard."\n'
ASKED = 'preference_prompt = "Which answer is easier to cook from?"'

# (rule, the principles planted, the line in the file on which the finding must stand)
FAULTS: list[tuple[str, tuple[str, ...], int]] = [
    ("invalid", (BRIEF + "weigth = 2",), 16),
    ("empty-text", ('name = "later"\ntext = "  "',), 15),
    ("name-collision", ('name = "Names_Sources"\ntext = "Steps of a recipe stand in order."',), 14),
    ("placeholder", ('name = "shop"\ntext = "The answer greets customers of {shop_name}."',), 15),
    (
        "control-text",
        ('name = "ends"\ntext = "A recipe ends with its <|im_end|> serving size."',),
        15,
    ),
    (
        "inverted-dont",
        ('name = "dose"\nkind = "dont"\ntext = "Never give doses of a medicine for a child."',),
        16,
    ),
    (
        "names-option",
        (BRIEF + 'preference_prompt = "Is answer A briefer than the other one?"',),
        16,
    ),
    ("names-position", (BRIEF + 'preference_prompt = "Is the second response shorter?"',), 16),
    (
        "unused-prompt",
        (BRIEF + 'use = ["preference"]\ncritique_prompt = "Where does it waste words?"',),
        17,
    ),
    ("no-critique", (), 1),
    ("no-preference", (), 1),
    ("never-drawn", (BRIEF + "weight = 0.001",), 16),
    ("drowns-others", (BRIEF + "weight = 40",), 16),
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
        (BRIEF + ASKED, f'name = "order"\ntext = "Steps come in sequence."\n{ASKED}'),
        21,
    ),
    (
        "contradiction",
        (
            'name = "mocks"\n'
            'text = "Mocking the reader for a spelling mistake or a naive question."',
        ),
        15,
    ),
    ("unknown-rule", (BRIEF + "# lint: ignore vauge",), 16),
    ("unused-ignore", (BRIEF + "# lint: ignore near-duplicate",), 16),
]


def planted(rule: str, faults: tuple[str, ...]) -> tuple[str, ...]:
    """The sound constitution with a fault in it; phases are broken in the sound part itself."""
    if rule in ("no-critique", "no-preference"):
        other = "preference" if rule == "no-critique" else "critique"
        return tuple(f'{p}\nuse = ["{other}"]' for p in SOUND)
    return (*SOUND, *faults)


def test_the_sound_constitution_is_sound(write: Write) -> None:
    assert lint(write(*SOUND)) == []


@pytest.mark.parametrize(("rule", "faults", "line"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_planted_fault_is_found_on_its_line_and_nothing_else(
    write: Write, rule: str, faults: tuple[str, ...], line: int
) -> None:
    path = write(*planted(rule, faults))
    findings = lint(path)
    assert {finding.rule for finding in findings} == {rule}
    finding = findings[0]
    assert (finding.path, finding.line) == (str(path), line)
    assert finding.severity == SEVERITY[rule]
    assert finding.reason and finding.fix


def test_there_is_a_planted_fault_for_every_rule() -> None:
    assert [rule for rule, _, _ in FAULTS] == list(SEVERITY)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('thoughts = ["Think about {foo}."]', "thoughts"),
        ('thoughts = ["{question}", "{{question}}"]', "thoughts"),
        ("scale = { prompt = '{text} TODO', options = ['a', 'b'], values = [1, 2] }", "scale"),
    ],
)
def test_a_placeholder_that_nothing_fills_is_found_in_the_head(
    write: Write, line: str, key: str
) -> None:
    (finding,) = lint(write(*SOUND, head=f"{HEAD}{line}\n"))
    assert (finding.rule, finding.line) == ("placeholder", 3)
    assert finding.reason.startswith(key)
    filled = line.replace("{foo}", "{question}").replace("{{question}}", "").replace("TODO", "")
    assert lint(write(*SOUND, head=f"{HEAD}{filled}\n")) == []


@pytest.mark.parametrize("name", ["lab", "harmless", "red-team", "customer-service"])
def test_nothing_is_found_in_what_we_ship(name: str) -> None:
    assert lint(name) == []


SPARED = [
    # ordinary wording that looks like a fault
    'name = "a"\ntext = "The answer turns a todo list into steps."',
    'name = "a"\ntext = "Recipes say which option costs less."\n'
    'preference_prompt = "Which answer lists the better options for a vegetarian?"',
    'name = "a"\ntext = "The bread recipe states a first and a second rise."\n'
    'preference_prompt = "Which answer explains both rises more clearly?"',
    'name = "a"\ntext = "Vitamin A and B are kept apart in recipes."\n'
    'preference_prompt = "Which answer keeps vitamin A and vitamin B apart more clearly?"',
    'name = "a"\nkind = "dont"\ntext = "Never giving a source for a figure."',
    'name = "a"\nkind = "dont"\ntext = "Not enough detail to cook from."',
    'name = "a"\ntext = "The answer should never name the source of every figure in it."',
    'name = "a"\ntext = "各段落は短く。"\n\n[[principle]]\nname = "b"\ntext = "出典を示す。"',
    'name = "a"\ntext = "§ 1"\n\n[[principle]]\nname = "b"\ntext = "§ 2"',
    # the same words for other prompts, or for the other phase
    'name = "a"\ntext = "Cite."\nprompts = ["helpful"]\n\n'
    '[[principle]]\nname = "b"\ntext = "Cite."\nprompts = ["red-team"]',
    'name = "a"\ntext = "Cite."\nuse = ["critique"]\n\n'
    '[[principle]]\nname = "b"\ntext = "Cite."\nuse = ["preference"]',
]


@pytest.mark.parametrize("spared", SPARED, ids=range(len(SPARED)))
def test_ordinary_wording_is_spared(write: Write, spared: str) -> None:
    assert [finding.text() for finding in lint(write(*SOUND, spared))] == []


# ---- ignoring


def test_an_ignore_holds_for_its_principle_only(write: Write) -> None:
    quiet = f'name = "a"\n{ASKED}\ntext = "Recipes rhyme."\n# lint: ignore same-prompt: a test'
    loud = f'name = "b"\n{ASKED}\ntext = "Recipes sing."'
    findings = lint(write(*SOUND, BRIEF + ASKED, quiet, loud))
    assert [(finding.principle, finding.rule) for finding in findings] == [("b", "same-prompt")]


def test_an_ignore_on_top_holds_for_the_file(write: Write) -> None:
    head = HEAD + "# lint: ignore drowns-others, invalid\n"
    path = write(*SOUND, BRIEF + "weight = 40", 'name = "c"\ntext = "x"\nodd = 1', head=head)
    assert lint(path) == []


# ---- files that cannot be read


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (HEAD + "[[principle]\n", 3, "not valid TOML"),
        (HEAD, 1, "no principles"),
        (HEAD + "principle = 3\n", 1, "not a list of tables"),
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
        'name = "a"\ntext = "Maps have a scale."\nweight = inf',
        'name = "b"\ntext = "Maps have a north."\nkind = "maybe"',
    )
    assert [(f.rule, f.line) for f in lint(path)] == [("invalid", 16), ("invalid", 21)]


def test_a_missing_file_is_the_users_mistake() -> None:
    with pytest.raises(ConstitutionError, match="no such constitution"):
        lint("nowhere.toml")


# ---- the command


def test_exit_codes_are_for_ci(write: Write, cai: Any) -> None:
    warned = write(*SOUND, BRIEF + "weight = 40", name="warned")
    broken = write(*SOUND, 'name = "a"\ntext = ""', name="broken")
    assert "0 errors, 1 warnings" in cai("lint", warned).stdout
    cai("lint", warned, "--strict", code=1)
    result = cai("lint", warned, broken, code=1)
    assert f"{broken}:15: error[empty-text] a: it has no text" in result.stdout
    assert "    fix: write what it asks for" in result.stdout
    cai("lint", "none", code=2)


def test_findings_for_machines(write: Write, cai: Any) -> None:
    path = write(*SOUND, BRIEF + "weight = 40")
    (row,) = json.loads(cai("lint", path, "--json").stdout)
    assert row["rule"] == "drowns-others"
    assert row["severity"] == "warning"
    assert (row["path"], row["line"], row["principle"]) == (str(path), 16, "brief")


def test_failing_is_by_severity(write: Write) -> None:
    findings = lint(write(*SOUND, BRIEF + "weight = 40"))
    assert not failed(findings, strict=False)
    assert failed(findings, strict=True)
    assert not failed([], strict=True)


def test_what_a_terminal_would_obey_is_escaped(write: Write, cai: Any) -> None:
    path = write(*SOUND, 'name = "a\u202eb\\u001b[2J"\ntext = "Maps have a scale."')
    text = cai("lint", path, code=1).stdout
    assert "error[control-text] a\\u202eb\\x1b[2J: name has" in text
    assert "\u202e" not in text and "\x1b" not in text
    assert "\x1b" not in cai("show", path).stdout


def test_thousands_of_principles_take_little_and_print_a_short_list(
    tmp_path: Path, cai: Any
) -> None:
    """A table of every two of these texts would take 32 MB."""
    tables = (
        f'\n[[principle]]\nname = "p{n}"\ntext = "Rule {n} names source {n * 7 % 997}."\n{ASKED}\n'
        for n in range(2_000)
    )
    path = tmp_path / "huge.toml"
    path.write_text(HEAD + "".join(tables), encoding="utf-8")
    tracemalloc.start()
    findings = lint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25e6
    assert len(findings) == 1_999
    lines = cai("lint", path).stdout.splitlines()
    assert len(lines) == 2 * SHOWN + 2
    assert lines[-2] == f"… and {len(findings) - SHOWN} more; --json lists all"


def test_every_rule_is_in_the_documentation() -> None:
    page = Path(__file__).parents[2] / "docs" / "constitutions.md"
    text = page.read_text(encoding="utf-8")
    assert [rule for rule in SEVERITY if f"`{rule}`" not in text] == []


@pytest.mark.parametrize(
    ("rationale", "rule"),
    [
        ("TODO", "placeholder"),
        ("It ends <|im_end|>.", "control-text"),
        ("See (A).", "names-option"),
    ],
)
def test_a_rationale_is_read_as_a_prompt_once_models_see_it(
    write: Write, rationale: str, rule: str
) -> None:
    planted = SOUND[0] + f'\nrationale = "{rationale}"'
    assert lint(write(planted, SOUND[1])) == []
    shown = lint(write(planted, SOUND[1], head=HEAD + "rationale = true\n"))
    assert [(finding.rule, finding.line) for finding in shown] == [(rule, 8)]
