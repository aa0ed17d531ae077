"""Breaks each part once and shows which test notices: `python tests/mutate.py [WORD]`.

What is broken stands in mutants.toml beside this file. Each change is made in a copy, never here,
and the tests that are named there run against the copy. With a word only the mutants whose
description holds it. Exit status 1 if one survives.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "constitutional_ai"


def mutants() -> list[dict[str, str]]:
    """Every change: what, file, old, new, tests."""
    found: list[dict[str, str]] = tomllib.loads(
        (ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8")
    )["mutant"]
    return found


def noticed(mutant: dict[str, str], copy: Path) -> str:
    """The first test that fails on the mutant, "" where none does. Leaves the copy as it was."""
    path = copy / PACKAGE / mutant["file"]
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant["old"], mutant["new"]), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0",
             *mutant["tests"].split()],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutant['what']}: pytest could not run\n{done.stdout}{done.stderr}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed else ""


def main(word: str = "") -> int:
    """Print a line for each mutant; the number that survived."""
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        kept = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        for name in kept:
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        for mutant in mutants():
            if word not in mutant["what"]:
                continue
            begun = time.monotonic()
            test = noticed(mutant, copy)
            survived += not test
            seconds = time.monotonic() - begun
            print(f"| {mutant['what']} | {test or '**survived**'} | {seconds:.0f} s |", flush=True)
    return survived


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:2])))
