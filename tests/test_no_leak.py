"""The truth is for measuring: nothing that trains, labels or watches can reach it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import architecture

# What makes, labels or learns from data, and what watches it.
BLIND = ("learning", "monitor", "engines", "judge", "data", "store", "constitution")
BLIND_STAGES = ("revise", "finetune", "sample", "label", "reward", "ppo", "dpo")
# The laboratory's modules that others load, and by whom.
PARTS = {
    ("cli.judge", "lab.world.pairs"),  # measures and calibrates judges
    ("cli.main", "lab.cli"),
    ("cli.main", "lab.studies.cli"),
    ("data.requests", "lab.redteam"),
    ("engines.tokens", "lab.world.tokenizer"),  # knows a model that was taught one spelling
    ("evaluation.oracle", "lab.evaluation"),
    ("judge.attack", "lab.judge_attacks"),
    ("redteam.world", "lab.redteam"),
    ("report.attachments", "lab.studies.attachment"),
    ("world", "lab.laboratory"),
}


def leaks(modules: Mapping[str, str]) -> list[str]:
    """Ways from what must be blind to the truth, and unknown ways into the laboratory."""
    blind = {name for name in modules if name.split(".")[0] in BLIND}
    blind |= {f"stages.{name}" for name in BLIND_STAGES}
    reached = architecture.reach(modules, blind)
    found = [f"{reached[name]} → {name}" for name in architecture.TRUTH & set(reached)]
    loaded = {(i.source, i.target) for i in architecture.imports(modules) if i.by_name}
    loaded = {(source, target) for source, target in loaded if target.startswith("lab.")}
    found += [f"{source} loads {target}" for source, target in sorted(loaded - PARTS)]
    return found + [line for line in architecture.out_of_order(modules) if "imports lab" in line]


def test_nothing_blind_reaches_the_oracle() -> None:
    modules = architecture.sources()
    assert set(modules) >= architecture.TRUTH, "the modules that know the truth have moved"
    assert leaks(modules) == []


def test_evaluation_does_reach_it() -> None:
    assert "lab.world.oracle" in architecture.reach(architecture.sources(), {"stages.evaluate"})


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("stages.label", "from ..lab.world.oracle import read"),
        ("stages.label", 'importlib.import_module("constitutional_ai.lab.world.oracle")'),
        ("learning.ppo", "import constitutional_ai.lab\nconstitutional_ai.lab.world.oracle.read"),
        ("stages.reward", "from constitutional_ai.redteam.truth import read"),
        ("stages.ppo", "from constitutional_ai.lab.studies.baselines import labels"),
        ("monitor.ppo", "from constitutional_ai.lab.world.topics import topic_of"),
        ("data.prompts", 'part("world.topics").topic_of("").kind'),
        ("judge.judge", "from constitutional_ai.evaluation.oracle import oracle"),
    ],
)
def test_a_planted_leak_is_noticed(module: str, planted: str) -> None:
    modules = architecture.sources()
    modules[module] += f"\n{planted}\n"
    try:
        noticed = leaks(modules)
    except ValueError as hidden:
        noticed = [str(hidden)]
    assert noticed


POISONED = """
import sys
from types import ModuleType

class Poison(ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(f"a stage read the truth: {self.__name__}.{name}")

for name in ("world.oracle", "world.gold", "training.skills"):
    sys.modules[f"constitutional_ai.lab.{name}"] = Poison(name)

from constitutional_ai.settings import load_settings
from constitutional_ai.stages.pipeline import run_pipeline

small = ["model.path=lab:xxs", "threads=1", "revise.prompts=8", "revise.rounds=1",
    "finetune.helpful=8", "finetune.epochs=1", "sample.red_team=6", "sample.helpful=6",
    "reward.epochs=1", "ppo.steps=1", "ppo.rollouts=4", "ppo.minibatches=1", "ppo.prompts=8",
    "ppo.monitor_every=1", "ppo.monitor_prompts=4"]
six = ["revise", "finetune", "sample", "label", "reward", "ppo"]
run_pipeline(load_settings("lab", small), sys.argv[1], six)
try:
    from constitutional_ai.evaluation.oracle import oracle
    oracle()
except (ImportError, RuntimeError):
    print("the poison works")
"""


def test_six_stages_run_with_the_truth_poisoned(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", POISONED, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(architecture.ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "6-ppo" / "manifest.json").exists()
    assert "the poison works" in done.stdout
