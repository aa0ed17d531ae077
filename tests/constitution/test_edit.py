"""Edited constitutions: only what is named changes, in every spelling of TOML."""

import difflib
from pathlib import Path

import pytest

from constitutional_ai.constitution import edit
from constitutional_ai.principles import Principle, find_constitution, load_constitution

SOURCE = """# What it is for.
name = "small"
version = "1.0"  # raise it

[[principle]]
name = "shy"
text = "The answer is shy."
prompts = [
  "helpful",  # for now
]

# About harm.

[[principle]]
name = "loud"
weight = 1.5  # and this
text = "The answer is loud."

# What this one is for: nothing.
"""
CHANGES = {
    "shy": {"prompts": ["red-team", "helpful"], "weight": 2.0},
    "loud": {"weight": 3.0, "prompts": ["helpful"]},
}
ADDED = [Principle(name="new", text='Says "no" \x7f.\n', kind="dont", weight=2.5)]


def test_only_what_is_named_changes(tmp_path: Path) -> None:
    before, path = tmp_path / "small.toml", tmp_path / "after.toml"
    before.write_text(SOURCE)
    path.write_text(edit.edited(SOURCE, CHANGES, ADDED, "9"))
    edit.check(path, load_constitution(before), CHANGES, ADDED)
    changed = [
        line
        for line in difflib.ndiff(SOURCE.splitlines(), path.read_text().splitlines())
        if line[0] in "+-"
    ]
    assert changed == [
        '- version = "1.0"  # raise it',
        '+ version = "9"  # raise it',
        "+ weight = 2.0",
        '+ prompts = ["red-team", "helpful"]',
        "- prompts = [",
        '-   "helpful",  # for now',
        "- ]",
        '+ prompts = ["helpful"]',
        "- weight = 1.5  # and this",
        "+ weight = 3.0  # and this",
        "+ ",
        "+ [[principle]]",
        '+ name = "new"',
        '+ text = "Says \\"no\\" \\u007f.\\n"',
        '+ kind = "dont"',
        "+ weight = 2.5",
    ]


@pytest.mark.parametrize(
    "source",
    [
        'principle = [{ name = "shy", text = "t" }, { name = "loud", text = "u" }]\n',
        '[[principle]]\nname = "shy"\ntext = "t"\n[[exemplar]]\nprompt = "p"\nanswer = "a"\n'
        'critique = "c"\nrevision = "r"\n[[principle]]\nname = "loud"\ntext = "u"',
        "[[principle]]\n'name' = 'shy'\ntext = '''t\n[[principle]]\n'''\n"
        "[[ principle ]]\ntext = 'u'\nname = 'loud'\n",
    ],
)
def test_every_spelling_of_toml_is_edited(tmp_path: Path, source: str) -> None:
    before, after = tmp_path / "before.toml", tmp_path / "after.toml"
    before.write_text('name = "odd"\nversion = "1"\n' + source)
    after.write_text(edit.edited(before.read_text(), CHANGES, ADDED, "2"))
    edit.check(after, load_constitution(before), CHANGES, ADDED)
    assert load_constitution(after).exemplars == load_constitution(before).exemplars


@pytest.mark.parametrize("name", ["lab", "harmless", "red-team", "customer-service"])
def test_shipped_constitutions_can_be_edited(name: str, tmp_path: Path) -> None:
    constitution = load_constitution(name)
    changes = {principle.name: {"weight": 7.5} for principle in constitution.principles}
    added = [p.model_copy(update={"name": f"{p.name}-again"}) for p in constitution.principles]
    after = tmp_path / f"{name}.toml"
    source = find_constitution(name).read_text(encoding="utf-8")
    after.write_text(edit.edited(source, changes, added, "2"))
    edit.check(after, constitution, changes, added)
