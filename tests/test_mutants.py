"""The list of what is broken once has to fit the code, or nothing would be broken."""

from pathlib import Path

import pytest

from tests.mutate import PACKAGE, ROOT, mutants


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant["what"])
def test_each_change_fits_the_code(mutant: dict[str, str]) -> None:
    text = (ROOT / PACKAGE / mutant["file"]).read_text(encoding="utf-8")
    assert text.count(mutant["old"]) == 1
    assert mutant["old"] != mutant["new"]
    assert all((ROOT / path).exists() for path in mutant["tests"].split())
    compile(text.replace(mutant["old"], mutant["new"]), str(Path(mutant["file"])), "exec")
