"""The stages in order, and what each one reads. A stage is one word in four places:
the module ``stages/WORD.py``, the command ``cai WORD``, the table ``[WORD]`` of the run file and
the folder ``N-WORD/`` of the run.

The last training has two forms, and the setting ``learner`` picks one by its stage's word: ``ppo``,
with a reward model before it, or ``dpo``. Both have the number 6, so the stages after keep theirs.
"""

from dataclasses import dataclass
from typing import Literal

Learner = Literal["ppo", "dpo"]  # the word of the stage that makes RL-CAI


@dataclass(frozen=True)
class Stage:
    """What a stage's rows depend on beside its own table, the run's model and the stages before.

    ``prompts`` are sources of ``[prompts]``. ``models``, ``files`` and ``sources`` are settings
    that name a model (or several), a small file or a source of rows. ``no_rows`` are settings of
    its table that decide no row. ``learner`` is the one with which the stage runs; None: with all.
    """

    number: int
    word: str
    help: str
    prompts: tuple[str, ...] = ()
    constitution: bool = False
    models: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    no_rows: tuple[str, ...] = ()
    trains: bool = False
    once: bool = False  # after the last round; the others run in every round
    learner: Learner | None = None


STAGES = (
    Stage(
        1,
        "revise",
        "answer, critique and revise, n rounds",
        prompts=("red_team",),
        constitution=True,
        models=("revise.critic",),
    ),
    Stage(
        2,
        "finetune",
        "finetune on the revised answers: SL-CAI",
        prompts=("helpful",),
        models=("finetune.helper",),
        no_rows=("checkpoint_every",),
        trains=True,
    ),
    Stage(
        3, "sample", "two answers a prompt from the SL-CAI model", prompts=("red_team", "helpful")
    ),
    Stage(
        4,
        "label",
        "AI feedback, a soft preference for each pair",
        constitution=True,
        models=("label.judge", "label.jury"),
        files=("label.calibration",),
    ),
    Stage(
        5,
        "reward",
        "fit the reward model to the preferences",
        no_rows=("checkpoint_every",),
        trains=True,
        learner="ppo",
    ),
    Stage(
        6,
        "ppo",
        "reinforcement learning against it: RL-CAI",
        prompts=("red_team", "helpful"),
        no_rows=("checkpoint_every",),
        trains=True,
        learner="ppo",
    ),
    Stage(
        6,
        "dpo",
        "the preferences alone, in place of reward and ppo: RL-CAI",
        no_rows=("checkpoint_every",),
        trains=True,
        learner="dpo",
    ),
    Stage(
        7,
        "evaluate",
        "measure every model on held-out prompts",
        prompts=("test",),
        models=("evaluate.judge",),
        sources=("evaluate.dialogues",),
        once=True,
    ),
    Stage(8, "report", "one page that a person reads", once=True),
)
STAGE_NAMES = tuple(stage.word for stage in STAGES)  # of every learner
STAGE_OF = {stage.word: stage for stage in STAGES}
ONCE = tuple(stage.word for stage in STAGES if stage.once)


def words_of(learner: Learner) -> tuple[str, ...]:
    """The stages of a run with this learner, in order.

    >>> words_of("dpo")
    ('revise', 'finetune', 'sample', 'label', 'dpo', 'evaluate', 'report')
    """
    return tuple(stage.word for stage in STAGES if stage.learner in (None, learner))
