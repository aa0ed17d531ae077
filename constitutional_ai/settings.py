"""The settings: a table for each stage, validated before anything runs.

How they are read from a run file and overridden: run_file.py. Paths in a run file are relative to
the working directory; ``lab`` means what ships with the package.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

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
from constitutional_ai.stage_settings import (
    DPOSettings,
    EvaluateSettings,
    FinetuneSettings,
    LabelSettings,
    PPOSettings,
    ReportSettings,
    ReviseSettings,
    RewardSettings,
    SampleSettings,
)


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
