"""What ships with the package: every constitution and every run file loads, and says something."""

from pathlib import Path

import pytest

from constitutional_ai import principles as constitution_module
from constitutional_ai.principles import Constitution, Use, load_constitution
from constitutional_ai.settings import load_settings

PACKAGE = Path(constitution_module.__file__).parent
SUITES = sorted((PACKAGE / "constitutions").glob("*.tests.toml"))
CONSTITUTIONS = sorted(set((PACKAGE / "constitutions").glob("*.toml")) - set(SUITES))
RUNS = sorted((PACKAGE / "runs").glob("*.toml"))
PROMPTS = ("critique_prompt", "revision_prompt", "preference_prompt")


def named(path: Path) -> str:
    return path.stem


@pytest.fixture(params=CONSTITUTIONS, ids=named)
def constitution(request: pytest.FixtureRequest) -> Constitution:
    return load_constitution(request.param.stem)


def test_what_the_readme_promises_is_there() -> None:
    assert {path.stem for path in CONSTITUTIONS} >= {"lab", "harmless", "red-team"}
    assert {path.stem for path in RUNS} >= {"lab"}


def test_the_file_is_named_after_the_constitution(constitution: Constitution) -> None:
    assert (PACKAGE / "constitutions" / f"{constitution.name}.toml").is_file()
    assert constitution.description


def test_names_and_texts_are_unique(constitution: Constitution) -> None:
    principles = constitution.principles
    assert len({p.name for p in principles}) == len(principles)
    assert len({p.text for p in principles}) == len(principles)
    assert len({p.hash for p in principles}) == len(principles)


def test_every_prompt_says_something_and_leaves_no_gap(constitution: Constitution) -> None:
    for principle in constitution.principles:
        for field in PROMPTS:
            prompt = getattr(principle, field)
            assert len(prompt.split()) >= 3, (principle.name, field)
            assert prompt == prompt.strip(), (principle.name, field)
            assert not set("{}\n") & set(prompt), (principle.name, field)


@pytest.mark.parametrize("use", ["critique", "preference"])
def test_something_can_be_drawn_for_red_team_prompts(constitution: Constitution, use: Use) -> None:
    (drawn,) = constitution.draw(use, "red-team", 1, "seed")
    assert use in drawn.use


def test_something_can_be_preferred_for_helpful_prompts(constitution: Constitution) -> None:
    assert constitution.usable("preference", "helpful")


def test_harmless_has_sixteen_principles_of_both_kinds() -> None:
    principles = load_constitution("harmless").principles
    assert len(principles) == 16
    assert {p.kind for p in principles} == {"do", "dont"}


@pytest.mark.parametrize("path", RUNS, ids=named)
def test_a_shipped_run_loads_and_so_does_its_constitution(path: Path) -> None:
    settings = load_settings(path.stem)
    assert settings.name == path.stem
    assert load_constitution(settings.constitution).principles


def test_the_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
