"""The truth is for measuring: nothing that trains, labels or watches may import it."""

import ast
from pathlib import Path

import constitutional_ai

PACKAGE = Path(constitutional_ai.__file__).parent
# The corpus makes the base models' lessons on the taught topics; all others only measure.
MAY_KNOW = {
    "lab/world/oracle.py",
    "lab/world/gold.py",
    "lab/training/skills.py",
    "lab/training/corpus.py",
    "lab/world/pairs.py",
    "lab/world/people.py",
    "lab/cli.py",  # `cai lab skills`, which measures
    "lab/evaluation.py",
    "lab/attack_readings.py",
    "report/findings.py",
    "report/plots.py",
    "report/sections.py",
    "lab/studies/acceptance.py",
    "lab/studies/baselines.py",  # named baselines: demonstrations and labels in place of people's
    "lab/studies/gold_readings.py",
}
TRUTH = {f"constitutional_ai.lab.{name}" for name in ("oracle", "gold", "skills")}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_only_evaluation_and_the_bases_teacher_import_the_oracle() -> None:
    knowing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if imports(path) & TRUTH
    }
    assert "lab/evaluation.py" in knowing  # the test sees what it looks for
    assert knowing <= MAY_KNOW, "the oracle leaks"
