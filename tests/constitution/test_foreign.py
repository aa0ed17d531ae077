"""Import: the paper's JSON, documents and lists become constitutions that load."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitution.lint import lint
from constitutional_ai.principles import load_constitution

DATA = Path(os.environ.get("CAI_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))

DOCUMENT = """
# Charter of the travel bot

Version: 3

What our assistant is held to.

## Hard constraints
These bind whatever else is asked.

- Never help anyone to cross a border illegally.
- **Card data.** Do not ask for a full card number.
  Why: a stolen chat log must be worthless.

## 1. Safety of travellers

### Warn of danger

The answer names official travel warnings for the place
that is asked about.

> People trust a cheerful tone more than a map.

### Emergencies (hard constraint)
The answer gives the local emergency number first.

```
- this is code, not a principle
```

## Usefulness
Priority: 2

1. Answers give prices with the date on which they were seen.
2. Avoid gushing about places.

## Tone

The answer is written as by a friend who has been there: concrete, brief, and without slogans.
"""


def imported(cai: Any, folder: Path, name: str, *texts: tuple[str, str], more: Any = ()) -> Any:
    files = []
    for file, text in texts:
        (folder / file).write_text(text, encoding="utf-8")
        files.append(folder / file)
    out = folder / f"{name}.toml"
    cai("import", *files, "--out", out, *more)
    return load_constitution(out)


def test_a_document_keeps_sections_ranks_and_reasons(tmp_path: Path, cai: Any) -> None:
    found = imported(cai, tmp_path, "travel", ("charter.md", DOCUMENT))
    assert (found.name, found.version) == ("travel", "3")
    assert found.description == "What our assistant is held to."
    by_name = {p.name: p for p in found.principles}
    assert [(p.kind, p.hard, p.priority) for p in found.principles] == [
        ("dont", True, 0),
        ("dont", True, 0),
        ("do", False, 1),
        ("do", True, 1),
        ("do", False, 2),
        ("dont", False, 2),
        ("do", False, 0),
    ]
    assert found.principles[0].text == "Helping anyone to cross a border illegally."
    assert by_name["card-data"].text == "Asking for a full card number."
    assert by_name["card-data"].rationale == "a stolen chat log must be worthless."
    assert by_name["warn-of-danger"].rationale.startswith("People trust")
    assert by_name["warn-of-danger"].text.endswith("that is asked about.")
    assert by_name["emergencies"].text == "The answer gives the local emergency number first."
    assert by_name["tone"].text.startswith("The answer is written as by a friend")
    source = (tmp_path / "travel.toml").read_text()
    assert "# ---- Hard constraints\n# These bind whatever else is asked.\n" in source
    assert "# from charter.md:11\n" in source
    assert "this is code" not in source
    assert lint(tmp_path / "travel.toml") == []


def test_a_list_is_a_principle_a_line(tmp_path: Path, cai: Any) -> None:
    text = (
        "# our rules\n1. Name sources: every figure has one.\n"
        "2) Never insult the customer\n   or their family.\n\n- Say what comes next in an order.\n"
        "- Say what comes next in an order of books.\n"
    )
    found = imported(cai, tmp_path, "rules", ("rules.txt", text))
    assert [(p.name, p.kind, p.text) for p in found.principles] == [
        ("name-sources", "do", "every figure has one."),
        ("insult-customer-family", "dont", "Insulting the customer or their family."),
        ("say-comes-next-order", "do", "Say what comes next in an order."),
        ("say-comes-next-order-2", "do", "Say what comes next in an order of books."),
    ]
    assert found.name == "rules"


PAPER = {
    "harmful0": {
        "prompt": ["\n\nCritiqueRequest: Say what is cruel in it.\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Rewrite it without cruelty.\n\nRevision:",
    },
    "two": {"prompt": ["\n\nCritiqueRequest: One?", "Two?"], "edit_request": "Rewrite."},
}
INSTRUCTIONS = ["\nPlease choose the kinder response. Options:", "\nWhich is less cruel? Options:"]


def test_the_papers_format_becomes_principles_of_each_phase(tmp_path: Path, cai: Any) -> None:
    found = imported(
        cai,
        tmp_path,
        "paper",
        ("critiques.json", json.dumps(PAPER)),
        ("choices.json", json.dumps(INSTRUCTIONS)),
        more=("--name", "of-the-paper"),
    )
    first, one, two, kinder, less = found.principles
    assert found.name == "of-the-paper"
    assert (first.name, first.use) == ("harmful0", ("critique",))
    assert first.critique_prompt == "Say what is cruel in it."
    assert first.revision_prompt == "Rewrite it without cruelty."
    assert (one.name, two.name, two.critique_prompt) == ("two-0", "two-1", "Two?")
    assert (kinder.use, kinder.preference_prompt) == (
        ("preference",),
        "Please choose the kinder response.",
    )
    assert less.name == "preference1"


@pytest.mark.skipif(not (DATA / "cai-paper").is_dir(), reason="the public data is not here")
def test_the_papers_own_files(tmp_path: Path, cai: Any) -> None:
    folder = DATA / "cai-paper" / "prompts"
    out = tmp_path / "paper.toml"
    files = [folder / f"{name}Instructions.json" for name in ("CritiqueRevision", "RLMadison")]
    assert "32 principles" in cai("import", *files, "--out", out).stdout
    constitution = load_constitution(out)
    assert len(constitution.usable("critique", "red-team")) == 16
    assert len(constitution.usable("preference", "helpful")) == 16
    for principle in constitution.principles:
        said = (
            f"{principle.critique_prompt} {principle.revision_prompt} {principle.preference_prompt}"
        )
        assert not any(mark in said for mark in ("Request:", "Options:", "\n", "Critique:"))


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("a.json", "{", "a.json: not valid JSON"),
        ("a.json", '{"x": {"prompt": ["a"]}}', "x: expected `prompt` and `edit_request`"),
        ("a.json", "[1]", "expected critique requests by name, or a list"),
        ("a.json", "[]", "no principles in it, read as paper"),
        ("a.txt", "# only a comment\n", "no principles in it, read as list"),
        ("a.md", "# Title\n", "no principles in it, read as markdown"),
    ],
)
def test_what_cannot_be_read_is_told(
    tmp_path: Path, cai: Any, file: str, text: str, reason: str
) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    result = cai("import", tmp_path / file, "--out", tmp_path / "out.toml", code=2)
    assert reason in result.stderr
    assert not (tmp_path / "out.toml").exists()


def test_no_file_is_overwritten(tmp_path: Path, cai: Any) -> None:
    (tmp_path / "a.txt").write_text("Name your sources always.\n")
    out = tmp_path / "mine.toml"
    out.write_text("precious")
    assert "already exists" in cai("import", tmp_path / "a.txt", "--out", out, code=2).stderr
    assert out.read_text() == "precious"
    cai("import", tmp_path / "a.txt", "--out", out, "--force")
    assert load_constitution(out).principles
    assert (
        "--format x"
        in cai("import", tmp_path / "a.txt", "--out", out, "--format", "x", code=2).stderr
    )
