"""The settings of the stages: a table for each, as a run file has it. What they share, and the
tables of models, prompts and servers: settings.py.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from constitutional_ai.setting_table import (
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Share,
    Table,
    TopP,
)


class ReviseSettings(Table):
    ADDED: ClassVar[Mapping[str, Any]] = {
        "form": "dialogue",
        "gate": "off",
        "draw": "any",
        "top_p": None,
    }
    LIMITS = ("min_kept",)

    prompts: Count = 500
    rounds: Count = 4
    temperature: NotNegative | None = None  # not set: the model's own (generation_config.json)
    top_p: TopP | None = None  # the fewest tokens whose mass reaches it; not set: the model's own
    max_new_tokens: Count = 64
    stop_when_clean: bool = False  # no further rounds for a row whose critique finds nothing
    critic: str = Field(default="self", min_length=1)  # who criticises and rewrites: or a spec
    critique: bool = True  # false: the rewrite is asked for without one (paper, figure 7)
    exemplars: CountOrNone = 0  # worked examples of the constitution, shown before each request
    # dialogue: the conversation goes on (paper, section 3.1); review: request and answer are quoted
    # to a reviewer; auto: dialogue for the laboratory's models, which were taught it, else review
    form: Literal["auto", "dialogue", "review"] = "auto"
    # judge: a revision that is cut, a copy or no better keeps the answer before (judge/gate.py);
    # auto: off for the laboratory's critics
    gate: Literal["auto", "judge", "off"] = "auto"
    # fitting: a kind of harm is drawn only for requests that are about it; auto: as for the gate
    draw: Literal["auto", "any", "fitting"] = "auto"
    min_kept: Share = 0.2  # the share of revisions below which the stage stops, with a gate
    chunk: Count = 300  # rows between two writes: the unit of resume

    @model_validator(mode="after")
    def _clean_by_critique(self) -> "ReviseSettings":
        if self.stop_when_clean and not self.critique:
            raise ValueError("stop_when_clean reads critiques, and critique = false asks for none")
        return self


class FinetuneSettings(Table):
    ADDED: ClassVar[Mapping[str, Any]] = {"max_new_tokens": None}

    helpful: CountOrNone = 1000  # answers to helpful prompts that keep SL-CAI helpful
    helper: str = Field(default="self", min_length=1)  # who writes them: "self" or a model's spec
    max_new_tokens: Count | None = None  # of such an answer; not set: as in [revise]
    every_revision: bool = True  # also finetune on the answers after 1 … n−1 revisions
    epochs: Count = 2
    lr: Positive = 5e-4
    batch_tokens: Count = 2048
    warmup_steps: CountOrNone = 5
    checkpoint_every: Count = 100  # steps; what an interrupted training goes on from


class SampleSettings(Table):
    ADDED: ClassVar[Mapping[str, Any]] = {"top_p": None}

    red_team: CountOrNone = 800
    helpful: CountOrNone = 800
    temperature: NotNegative | None = None  # not set: the model's own (generation_config.json)
    top_p: TopP | None = None  # the fewest tokens whose mass reaches it; not set: the model's own
    max_new_tokens: Count = 64
    swapped: Share = 0.1  # pairs whose second answer is one that was given to another prompt
    refused: Share = 0.08  # helpful prompts whose second answer is made to open like a refusal
    chunk: Count = 600


class LabelSettings(Table):
    """``method`` says how the judge is asked, ``mode`` what becomes of its probability."""

    LIMITS = ("max_unlabelled",)
    ADDED: ClassVar[Mapping[str, Any]] = {"top_p": None, "cut": "keep"}

    judge: str = Field(default="base", min_length=1)  # "base", "sl-cai", or a model's spec
    jury: Annotated[tuple[str, ...], Field(strict=False)] = ()  # more judges; the label is the mean
    principles: Count = 2  # drawn for each pair; the label is the mean
    weighted: bool = False  # the mean goes by the principles' weights
    # compare: log-probabilities of (A) and (B); thoughts: the same after thinking aloud;
    # vote: the share of sampled replies; score: one answer at a time, on a scale
    method: Literal["compare", "thoughts", "vote", "score"] = "compare"
    samples: Count = 5  # thoughts, or votes, of each question
    temperature: NotNegative | None = None  # of thoughts and votes; not set: the model's own
    top_p: TopP | None = None  # likewise
    max_new_tokens: Count = 256  # of a thought
    mode: Literal["auto", "soft", "hard", "clamped"] = "auto"  # clamped after thoughts, else soft
    clamp: Annotated[tuple[Share, Share], Field(strict=False)] = (0.4, 0.6)
    calibration: str = ""  # what `cai judge calibrate` wrote: a temperature for each judge
    fence: bool = True  # quote what is judged inside a random nonce, and say how to reply
    exemplars: CountOrNone = 0  # judged examples of the constitution, shown before each question
    last_turn: bool = False  # of a dialogue, show the judge the last request alone
    spoken: bool = False  # have each verdict said as well: no letter, no label; twice the cost
    # a pair with an answer that was cut off gets no label; auto: keep in the laboratory, else drop
    cut: Literal["auto", "keep", "drop"] = "auto"
    max_unlabelled: Share = 0.2  # the share of pairs without a verdict above which the stage stops
    chunk: Count = 600

    @field_validator("clamp")
    @classmethod
    def _ordered(cls, clamp: tuple[float, float]) -> tuple[float, float]:
        if clamp[0] > clamp[1]:
            raise ValueError("the first bound is above the second; swap them")
        return clamp

    @model_validator(mode="after")
    def _exemplars_are_comparisons(self) -> "LabelSettings":
        if self.exemplars and self.method not in ("compare", "vote"):
            raise ValueError("exemplars are for the methods compare and vote; leave them at 0")
        return self


class RewardSettings(Table):
    epochs: Count = 2
    lr: Positive = 6e-4
    batch_pairs: Count = 32
    warmup_steps: CountOrNone = 5
    label_margin: Annotated[float, Field(ge=0, lt=0.5)] = 0.02  # labels stay this far off 0 and 1
    score_l2: NotNegative = 0.002  # weight of the mean squared score; keeps scores near zero
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of pairs that only measure
    checkpoint_every: Count = 100  # steps; what an interrupted training goes on from
    ensemble: Count = 1  # reward models; each further one is fitted to a resample of the pairs


class PPOSettings(Table):
    """Proximal policy optimisation. ``kl_coef`` weighs the KL penalty against the reward."""

    steps: Count = 45
    rollouts: Count = 128  # answers a step
    epochs: Count = 1
    minibatches: Count = 2
    lr: Positive = 2e-4
    warmup_steps: CountOrNone = 4
    batch_tokens: Count = 2048  # a forward pass holds no more; gradients of several are added up
    kl_coef: NotNegative = 0.1
    kl_target: Positive | None = None  # nats an answer; set, it adapts kl_coef to reach it
    max_kl: Positive | None = None  # nats an answer above which the run stops
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2  # the ratio stays within 1 ± clip
    value_clip: Positive = 0.2
    gamma: Share = 1.0
    lam: Share = 0.95
    ensemble: Literal["mean", "min"] = "mean"  # what becomes of several reward models' scores
    value: Literal["shared", "separate"] = "shared"  # MLP on the reward model's states, or a model
    value_lr: Positive = 2e-3  # of the MLP; a separate value model takes lr
    value_epochs: Count = 8  # steps of the MLP on each rollout
    missing_end_penalty: NotNegative = 2.0
    logratio_clamp: Positive = 10.0
    temperature: Positive = 1.0
    max_new_tokens: Count = 64
    prompts: Count = 1500
    red_team_share: Share = 0.4
    sl_mix: NotNegative = 0.0  # weight of L_SL beside L_RL in every minibatch
    monitor: Literal["stop", "warn", "off"] = "stop"  # what reward hacking leads to
    monitor_every: Count = 5
    monitor_prompts: Count = 96  # half of them helpful, half red-team
    checkpoint_every: Count = 10


class DPOSettings(Table):
    """Direct preference optimisation, with ``learner = "dpo"`` in place of [reward] and [ppo].

    ``beta`` is the weight of the KL that the method holds the policy by, as ``ppo.kl_coef`` is.
    """

    beta: Positive = 0.1
    # soft: the judge's probability is the target; hard: its side alone; ipo: likewise, a squared
    # loss that wants a margin and no more. The last two leave out pairs whose label is 0.5
    loss: Literal["soft", "hard", "ipo"] = "soft"
    epochs: Count = 2
    lr: Positive = 2e-4
    batch_pairs: Count = 32
    batch_tokens: Count = 2048  # a forward pass holds no more; gradients of several are added up
    warmup_steps: CountOrNone = 5
    label_margin: Annotated[float, Field(ge=0, lt=0.5)] = 0.02  # soft labels stay this far off 0, 1
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of pairs that only measure
    sl_mix: NotNegative = 0.0  # weight of L_SL beside the loss of the pairs in every step
    checkpoint_every: Count = 100  # steps; what an interrupted training goes on from


Metric = Literal[
    "harmful", "harm", "helpful", "refused_judge", "evasive", "correct", "false_claim"
]  # judge/questions.py


class EvaluateSettings(Table):
    """How many test prompts of each kind, and what is asked about the answers.

    The counts hold for the laboratory's prompts and for a file's prompts of those kinds; of other
    kinds all are taken. Without an oracle a judge reads the answers: ``judge``, which should not be
    the one that labelled the training data.
    """

    ADDED: ClassVar[Mapping[str, Any]] = {
        "judge": "", "capability": True, "dialogues": "", "dialogue_count": 200, "top_p": None,
        "questions": (), "pairs_kinds": (), "canaries": 100,
    }  # fmt: skip

    judge: str = ""  # "base", "sl-cai" or a model's spec; "" takes the judge and jury of [label]
    harmful: CountOrNone = 300
    benign: CountOrNone = 120
    borderline: CountOrNone = 120
    facts: CountOrNone = 120
    samples: Count = 1  # answers to each prompt, at a temperature above 0
    temperature: NotNegative | None = None  # not set: the model's own (generation_config.json)
    top_p: TopP | None = None  # the fewest tokens whose mass reaches it; not set: the model's own
    max_new_tokens: Count = 64
    grade: bool = True  # the judge reads each answer alone: harm, help, refusal, evasion, truth
    # which of its questions the judge is asked about each answer; none named: all that have a sense
    questions: Annotated[tuple[Metric, ...], Field(strict=False)] = ()
    pairs: Literal["first", "all", "off"] = "first"  # which models' answers the judge compares
    pairs_kinds: Annotated[tuple[str, ...], Field(strict=False)] = ()  # on these kinds; none: all
    canaries: CountOrNone = 100  # helpful prompts on which empty talk is compared with an answer
    # what a model knew and still knows; the laboratory's models know neither English nor sums
    capability: bool = True  # outside the laboratory, ask each model questions of general knowledge
    dialogues: str = ""  # helpful dialogues of people, whose answers each model is to find likely
    dialogue_count: Count = 200  # of them, drawn
    difference: Annotated[float, Field(gt=0, le=1)] = 0.1  # of two shares, that is to be found
    chunk: Count = 330  # answers between two writes

    @model_validator(mode="after")
    def _samples_differ(self) -> "EvaluateSettings":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples at temperature 0 are copies; raise the temperature")
        return self


class ReportSettings(Table):
    transcripts: CountOrNone = 12
    # folders of `cai redteam`, `cai evaluate` and `cai study` whose figures join the page
    beside: Annotated[tuple[str, ...], Field(strict=False)] = ()
