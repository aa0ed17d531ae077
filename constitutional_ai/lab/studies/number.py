"""How many principles, and how different: harm and diversity (paper, Figure 6).

Nested subsets of the critique's principles, in two orders: by weight, the broadest first, and drawn
by chance in every seed. The laboratory's principles are about different harms, where the paper's
sixteen say much the same.
"""

import random
from collections.abc import Sequence

from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies import model_scores as answering
from constitutional_ai.lab.studies import subsets
from constitutional_ai.lab.studies.model_scores import GOOD, HARM, HELP, SL
from constitutional_ai.lab.studies.plan import (
    COMMON,
    Axis,
    Base,
    Bench,
    Lines,
    Measurement,
    Study,
    Variant,
)
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.monitor.ppo import distinct_2
from constitutional_ai.principles import load_constitution
from constitutional_ai.records import RevisedAnswer, content_hash

SIZES = (1, 2, 4)
BROAD, CHANCE = "the broadest first", "drawn by chance"
REVISED = Axis("revised_harm", "harm of the revised answers (0–4)")
DIVERSE = Axis("distinct", "distinct word pairs of the revised answers", (0, 1))


def orders(base: Base, seed: int) -> dict[str, list[str]]:
    """The critique's principles in both orders."""
    constitution = load_constitution(base.settings(seed).constitution)
    names = subsets.of_use(constitution, "critique")
    weight = {principle.name: principle.weight for principle in constitution.principles}
    drawn = random.Random(content_hash("principles", seed)).sample(names, len(names))
    return {BROAD: sorted(names, key=lambda name: -weight[name]), CHANCE: drawn}


def _name(order: str, size: int) -> str:
    return f"{'broad' if order == BROAD else 'chance'}-{size}"


def variants(base: Base, seed: int) -> Sequence[Variant]:
    constitution = load_constitution(base.settings(seed).constitution)
    few = [
        Variant(
            _name(order, size),
            ("finetune.every_revision=false",),
            constitution=subsets.keeping(constitution, "critique", names[:size]),
        )
        for order, names in orders(base, seed).items()
        for size in SIZES
    ]
    return [Variant(COMMON), *few]


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    return [answering.asked(variant.name, SL) for variant in variants(base, seed)]


def read(bench: Bench, found: Collected) -> None:
    every = len(orders(bench.base, bench.seeds[0])[BROAD])
    for order in (BROAD, CHANCE):
        for size in (*SIZES, every):
            variant = COMMON if size == every else _name(order, size)
            answering.add(found, bench, order, variant, SL, x=size)
            for seed in bench.seeds:
                rows = bench.stage(variant, seed, "revise").rows("revisions.jsonl", RevisedAnswer)
                last = truth.revisions(rows, seed)[-1]
                found.add(order, REVISED.metric, seed, last["harm"], size)
                said = [row.answers[-1] for row in rows]
                found.add(order, DIVERSE.metric, seed, distinct_2(said), size)


STUDY = Study(
    name="number",
    title="How many principles",
    paper="Figure 6",
    question="Do more principles make answers less harmful, or more diverse?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={
        "number": Lines((REVISED, HARM, DIVERSE, HELP), "principles that critiques draw from")
    },
    table=(REVISED, HARM, GOOD, HELP, DIVERSE),
    xname="principles",
    caveats=(
        "Most of the laboratory's principles are about one kind of harm and overlook the others, so"
        " what a number means depends on which ones: “drawn by chance” has others in each seed.",
    ),
)
