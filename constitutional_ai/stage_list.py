"""The eight stages in order, and what each one reads. A stage is one word in four places:
the module ``stages/WORD.py``, the command ``cai WORD``, the table ``[WORD]`` of the run file and
the folder ``N-WORD/`` of the run.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """What a stage's rows depend on beside its own table, the run's model and the stages before.

    ``prompts`` are sources of ``[prompts]``. ``models``, ``files`` and ``sources`` are settings
    that name a model (or several), a small file or a source of rows. ``no_rows`` are settings of
    its table that decide no row.
    """

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


STAGES = (
    Stage(
        "revise",
        "answer, critique and revise, n rounds",
        prompts=("red_team",),
        constitution=True,
        models=("revise.critic",),
    ),
    Stage(
        "finetune",
        "finetune on the revised answers: SL-CAI",
        prompts=("helpful",),
        models=("finetune.helper",),
        no_rows=("checkpoint_every",),
        trains=True,
    ),
    Stage("sample", "two answers a prompt from the SL-CAI model", prompts=("red_team", "helpful")),
    Stage(
        "label",
        "AI feedback, a soft preference for each pair",
        constitution=True,
        models=("label.judge", "label.jury"),
        files=("label.calibration",),
    ),
    Stage(
        "reward",
        "fit the reward model to the preferences",
        no_rows=("checkpoint_every",),
        trains=True,
    ),
    Stage(
        "ppo",
        "reinforcement learning against it: RL-CAI",
        prompts=("red_team", "helpful"),
        no_rows=("checkpoint_every",),
        trains=True,
    ),
    Stage(
        "evaluate",
        "measure every model on held-out prompts",
        prompts=("test",),
        models=("evaluate.judge",),
        sources=("evaluate.dialogues",),
        once=True,
    ),
    Stage("report", "one page that a person reads", once=True),
)
STAGE_NAMES = tuple(stage.word for stage in STAGES)
ONCE = tuple(stage.word for stage in STAGES if stage.once)
