"""Tutorials are run again: outputs replaced, tables refilled; a failing command changes nothing."""

import sys
from pathlib import Path

import pytest

from constitutional_ai.errors import DataError
from constitutional_ai.lab.studies.results import Collected, Result, save
from tools import tutorials

TEXT = """# A tutorial

```console show=2
$ printf 'a\\nb\\nc\\n'
old
$ echo "one" \\
    two
```

```toml
$ = 1
```

<!-- study: revisions -->
old table
<!-- /study -->
"""


def test_outputs_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "t.md"
    file.write_text(TEXT)
    for _ in range(2):  # a second time nothing changes
        list(tutorials.refresh(file, None, run=True))
        text = file.read_text()
        assert "$ printf 'a\\nb\\nc\\n'\n…\nb\nc\n$ echo \"one\" \\\n    two\none two\n```" in text
        assert "old\n$" not in text and "```toml\n$ = 1\n```" in text and "old table" in text


def test_tables_come_from_results(tmp_path: Path) -> None:
    file = tmp_path / "t.md"
    file.write_text(TEXT)
    cells = Collected()
    for seed, harm in enumerate((3.0, 3.2)):
        cells.add("the revised answers", "harm", seed, harm)
    result = Result("revisions", [0, 1], "study", [], "lab:s", "cai study", "0", cells.cells(), [])
    save(result, tmp_path / "results" / "revisions.json")
    list(tutorials.refresh(file, tmp_path, run=False))
    text = file.read_text()
    assert "| the revised answers | 0 | 3.10" in text and "over 2 seeds" in text
    assert "old\n" in text and "old table" not in text  # no command was run


def test_a_command_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "t.md"
    file.write_text(TEXT.replace('echo "one"', "false"))
    before = file.read_text()
    with pytest.raises(DataError, match="ended with 1"):
        list(tutorials.refresh(file, None, run=True))
    assert file.read_text() == before


def test_cai_is_found_beside_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tutorial runs the `cai` that runs the tutorial, though no PATH leads to it."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    file = tmp_path / "where.md"
    file.write_text("```console\n$ command -v python\n```\n")
    list(tutorials.refresh(file, None, run=True))
    assert str(Path(sys.executable).parent) in file.read_text()
