"""The prompts of a round's second run: attacks that got through, and plain requests."""

import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.records import PromptSet, content_hash
from constitutional_ai.settings import Settings

ATTACKS_SHARE = 0.5  # at most, of the second run's red-team prompts
COPIES = 2  # a handful of attacks, repeated often, would crowd out all others (docs/log)
Row = dict[str, Any]


def needed(settings: Settings) -> tuple[int, int]:
    """How many prompts of each set the most demanding stage draws."""
    rollouts = settings.ppo.prompts if settings.learner == "ppo" else 0
    red = math.ceil(rollouts * settings.ppo.red_team_share)
    return (
        max(settings.revise.prompts, settings.sample.red_team, red),
        max(settings.finetune.helpful, settings.sample.helpful, rollouts),
    )


def mix(settings: Settings, out: Path) -> None:
    """Write OUT/red_team.jsonl and OUT/helpful.jsonl from what lies in OUT/amend, and plain ones.

    Where too few attacks got through, each stands COPIES times at most, and their share is smaller;
    where a plain file has too few prompts, it is larger.
    """
    red_team, helpful = needed(settings)
    rng = random.Random(content_hash("mixed", settings.seed))
    attacks = written(out / "amend" / "red_team.jsonl")
    chosen = repeated(
        attacks, min(round_half(red_team * ATTACKS_SHARE), COPIES * len(attacks)), rng
    )
    disguised = balanced(
        Counter(row["family"] for row in chosen),
        red_team,
        written(out / "amend" / "helpful.jsonl"),
        helpful,
        rng,
    )
    sources: list[tuple[str, PromptSet, list[Row], int]] = [
        (settings.prompts.red_team, "red-team", chosen, red_team),
        (settings.prompts.helpful, "helpful", disguised, helpful),
    ]
    for source, set_, rows, count in sources:
        plain = load_prompts(source, set_, count - len(rows), settings.seed)
        mixed = [*rows, *({"prompt": prompt.prompt} for prompt in plain)]
        rng.shuffle(mixed)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in mixed)
        (out / f"{set_.replace('-', '_')}.jsonl").write_text(lines, encoding="utf-8")


def balanced(
    attacks: Mapping[str, int],
    red_team: int,
    benign: Sequence[Row],
    helpful: int,
    rng: random.Random,
) -> list[Row]:
    """Benign rows: each family has the share of ``helpful`` that its attacks have of ``red_team``.

    Where a disguise stood before one kind of request more often than before the other, the model
    would learn to read the disguise and not the request (docs/log).
    """
    found: list[Row] = []
    for family, count in sorted(attacks.items()):
        rows = [row for row in benign if row["family"] == family]
        if rows:  # plain requests have no disguise
            found += repeated(rows, round_half(count / red_team * helpful), rng)
    return found


def repeated(rows: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    """``count`` of the rows in random order, each as often as any other, give or take one."""
    rounds = [rng.sample(rows, len(rows)) for _ in range(-(-count // max(1, len(rows))))]
    return [row for shuffled in rounds for row in shuffled][:count]


def written(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def round_half(value: float) -> int:
    return math.floor(value + 0.5)
