"""How many principles, and how different: harm and diversity (paper, Figure 6).

Nested subsets of the critique's principles, in two orders: by weight with the broadest first, and
drawn by chance in every seed. The laboratory's principles are about different harms, while the
paper's sixteen say much the same.
"""

import random
from collections.abc import Sequence

from constitutional_ai.lab.studies import measures, study, subsets
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.measures import GOOD, HARM, HELP, SL
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.world import gold
from constitutional_ai.monitor.ppo import distinct_2
from constitutional_ai.principles import load_constitution
from constitutional_ai.records import content_hash

SIZES = (1, 2, 4)
BROAD, CHANCE = "the broadest first", "drawn by chance"
REVISED = study.Axis("revised_harm", "harm of the revised answers (0–4)")
DIVERSE = study.Axis("distinct", "distinct word pairs of the revised answers", (0, 1))


def lines(base: study.Base, seed: int) -> Sequence[study.Line]:
    """Each order's subsets by size; the last of both has all principles."""
    constitution = load_constitution(base.settings(seed).constitution)
    names = subsets.of_use(constitution, "critique")
    weight = {principle.name: principle.weight for principle in constitution.principles}
    drawn = random.Random(content_hash("principles", seed)).sample(names, len(names))
    broad = sorted(names, key=lambda name: -weight[name])
    made = []
    for label, order, short in ((BROAD, broad, "broad"), (CHANCE, drawn, "chance")):
        for size in SIZES:
            kept = subsets.keeping(constitution, "critique", order[:size])
            alone = ("finetune.every_revision=false",)
            few = study.Variant(f"{short}-{size}", alone, constitution=kept)
            made.append(study.Line(label, few, SL, x=size))
        made.append(study.Line(label, study.COMMON_SL, SL, x=len(names)))
    return made


def read(bench: study.Bench, cells: Collected) -> None:
    for line in lines(bench.base, bench.seeds[0]):
        for seed in bench.seeds:
            rows = measures.revisions(bench, line.variant.name, seed)
            harm = gold.revisions(rows, seed)[-1]["harm"]
            cells.add(line.name, REVISED.metric, seed, harm, line.x)
            diverse = distinct_2([row.answers[-1] for row in rows])
            cells.add(line.name, DIVERSE.metric, seed, diverse, line.x)


STUDY = study.Study(
    ABOUT["number"],
    lines=lines,
    read=read,
    figures={
        "number": study.Lines((REVISED, HARM, DIVERSE, HELP), "principles that critiques draw from")
    },
    table=(REVISED, HARM, GOOD, HELP, DIVERSE),
    xname="principles",
)
