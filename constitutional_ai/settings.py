"""The settings: a table for each stage, validated before anything runs.

How they are read from a run file and overridden: run_file.py. Paths in a run file are relative to
the working directory; ``lab`` means what ships with the package.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from constitutional_ai import run_file
from constitutional_ai.setting_table import (
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Share,
    Table,
    TopP,
)
from constitutional_ai.stage_list import Learner


class ModelSettings(Table):
    """The model that everything starts from, and what of it is trained.

    ``path`` is ``lab:s``, ``lab:xs``, ``lab:xxs``, a folder, or a hub id. A ``revision`` (branch,
    tag or commit of a hub id) is joined to it: from here on the model is ``hub/id@revision``.
    """

    path: str = Field(default="lab:s", min_length=1)
    revision: str = ""
    # auto: bfloat16 if the weights are stored so and the device is fast at it
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = Field(default="auto", min_length=1)
    lora_rank: CountOrNone = 0  # 0 trains all weights, more trains adapters of that rank (peft)
    lora_alpha: Count = 32  # an adapter's output is scaled by lora_alpha / lora_rank
    # names of linear layers, such as "q_proj"; none named: all of them but the head
    lora_targets: Annotated[tuple[str, ...], Field(strict=False)] = ()
    gradient_checkpointing: bool = False  # training keeps few activations and computes them twice

    @model_validator(mode="before")
    @classmethod
    def _join_revision(cls, data: Any) -> Any:
        """One string names a model wherever it goes, in rows and fingerprints too."""
        if not isinstance(data, dict) or not data.get("revision"):
            return data
        path, revision = data.get("path"), data["revision"]
        if path is None:
            raise ValueError("a revision is one of a hub id: name that as the path")
        if not isinstance(path, str) or not isinstance(revision, str):
            return data
        if "@" in path:
            raise ValueError("the path names a revision after its @ already; leave this one out")
        return {**data, "path": f"{path}@{revision}", "revision": ""}


class PromptsSettings(Table):
    """Where prompts come from: ``lab``, or a JSONL file of ``{"prompt": text or messages}``.

    ``FILE#half=1`` and ``FILE#half=2`` are the halves of a file. A list joins several sources.
    """

    red_team: str = Field(default="lab", min_length=1)
    helpful: str = Field(default="lab", min_length=1)
    test: str = Field(default="lab", min_length=1)

    @field_validator("*", mode="before")
    @classmethod
    def _join_sources(cls, value: Any) -> Any:
        """One string names sources wherever it goes, in fingerprints and on the command line."""
        if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
            return " + ".join(value)
        return value


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


class RedteamSettings(Table):
    """How `cai redteam` attacks; its options of the same names come before this table.

    An empty name takes what fits the prompts: in the laboratory ``lab:s`` judges under ``lab``,
    elsewhere the first model judges under ``red-team``; the judge criticises and attacks.
    """

    prompts: str = Field(default="lab", min_length=1)  # "lab", "lab-train" or a file
    benign: str | None = None  # a file of harmless requests, for over-refusal
    examples: str | None = None  # a file of requests with answers that comply, for few-shot
    families: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("all",)
    steps: Literal[1, 2] = 1  # 2 adds every two families in a row
    judge: str = ""
    critic: str = ""
    attacker: str = ""
    constitution: str = ""
    candidates: str | None = None  # a further constitution whose principles are tried as critics
    requests: Count = 100
    benign_requests: CountOrNone = 50
    rounds: Count = 4  # of a search
    temperature: NotNegative | None = None  # not set: the model's own (in the laboratory 1)
    top_p: TopP | None = None  # the fewest tokens whose mass reaches it; not set: the model's own
    max_new_tokens: CountOrNone = 0  # 0 takes 64 in the laboratory, else 512
    chunk: Count = 256


class HttpSettings(Table):
    """How model servers are asked: models named ``http://HOST:PORT/v1#MODEL``. See docs/engines.md.

    A server's key is in an environment variable; ``keys`` names that variable for each host.
    """

    keys: Annotated[tuple[str, ...], Field(strict=False)] = ()  # such as "api.example.com=API_KEY"
    concurrency: Count = 64  # requests at once
    timeout: Positive = 300.0  # seconds for a whole reply
    retries: CountOrNone = 6  # further tries after a broken or late reply, or an error (5xx)
    max_wait: Positive = 60.0  # seconds between two tries
    patience: NotNegative = 600.0  # seconds to wait for a server that is away or says "later"
    max_failed: Share = 0.01  # of a stage's rows; what does not fit a local model is not counted
    extra: str = ""  # a JSON object to join to every request, for what only your server knows

    @field_validator("keys")
    @classmethod
    def _name_variables(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for entry in keys:
            if not re.fullmatch(r"[^=\s]+=[A-Za-z_][A-Za-z0-9_]*", entry):
                raise ValueError(  # without the entry: it may be the key itself
                    "expected HOST=VARIABLE, the name of an environment variable and not the key"
                )
        return keys

    @field_validator("extra")
    @classmethod
    def _is_object(cls, extra: str) -> str:
        try:
            is_object = not extra or isinstance(json.loads(extra), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise ValueError('expected a JSON object, such as \'{"reasoning_effort": "low"}\'')
        if re.search(r"(?i)key|token\"|secret|password|authorization", extra):
            raise ValueError(  # without the text: it may hold the key itself
                "looks like a key, and this is written into every manifest; put the key into an"
                " environment variable and name it: http.keys = ['HOST=VARIABLE']"
            )
        return extra


class VllmSettings(Table):
    """vLLM in this process, for models named ``vllm:`` and a folder or hub id."""

    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.6  # share of the GPU's memory it may take
    max_model_len: CountOrNone = 0  # tokens of prompt and answer; 0: what the model allows


class Settings(Table):
    name: str = Field(default="lab", min_length=1)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: Count = 1  # alternations of the SL phase and the RL phase
    learner: Learner = "ppo"  # what stage 6 is: ppo, after a reward model, or dpo, without one
    constitution: str = Field(default="lab", min_length=1)  # a shipped one's name, or a file
    threads: Annotated[int, Field(ge=0, le=1024)] = 0  # 0 takes every core
    model: ModelSettings = ModelSettings()
    prompts: PromptsSettings = PromptsSettings()
    revise: ReviseSettings = ReviseSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    sample: SampleSettings = SampleSettings()
    label: LabelSettings = LabelSettings()
    reward: RewardSettings = RewardSettings()
    ppo: PPOSettings = PPOSettings()
    dpo: DPOSettings = DPOSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()
    redteam: RedteamSettings = RedteamSettings()
    http: HttpSettings = HttpSettings()
    vllm: VllmSettings = VllmSettings()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if set(name) & set("/\\\n\t") or name in (".", ".."):
            raise ValueError(f"{name!r} names the folder out/NAME; leave out slashes and line ends")
        return name

    @model_validator(mode="after")
    def _as_the_critic_was_taught(self) -> "Settings":
        """What "auto" means for these models, so that no stage has to ask."""
        critic = self.model.path if self.revise.critic == "self" else self.revise.critic
        taught = critic.startswith("lab:")
        meant = {
            "form": "dialogue" if taught else "review",
            "gate": "off" if taught else "judge",
            "draw": "any" if taught else "fitting",
        }
        auto = {name: word for name, word in meant.items() if getattr(self.revise, name) == "auto"}
        # The settings are frozen; this is still their making.
        object.__setattr__(self, "revise", self.revise.model_copy(update=auto))
        if self.label.cut == "auto":
            cut = "keep" if self.model.path.startswith("lab:") else "drop"
            object.__setattr__(self, "label", self.label.model_copy(update={"cut": cut}))
        return self

    def to_toml(self) -> str:
        """Every setting as a run file; one without a value is a comment."""
        plain = self.model_dump(mode="json")
        tables = {name: value for name, value in plain.items() if isinstance(value, dict)}
        top = {name: value for name, value in plain.items() if name not in tables}
        parts = [_toml_lines(top), *(f"[{n}]\n{_toml_lines(table)}" for n, table in tables.items())]
        return "\n".join(parts)


def load_run_file(
    path: str | Path, overrides: Sequence[str] = ()
) -> tuple["Settings", Callable[[str], str]]:
    """The settings, and a function from a setting to where it was written.

    Raises SettingsError with file, line and remedy.
    """
    file = run_file.read(path, overrides)
    return file.settings(Settings), file.place


def load_settings(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a run file, or of a shipped one by its bare name, under ``overrides``.

    Raises SettingsError with file, line and remedy.
    """
    return load_run_file(path, overrides)[0]


def _toml_lines(table: dict[str, Any]) -> str:
    """``name = value`` lines; JSON spells numbers, text and lists as TOML does."""
    lines = []
    for name, value in table.items():
        spelled = json.dumps(value, ensure_ascii=False)
        lines.append(f"# {name} is not set\n" if value is None else f"{name} = {spelled}\n")
    return "".join(lines)
