"""The rows that stages hand to each other. One record is one JSONL line.

Shapes are those of Hugging Face: a conversation is a list of ``{"role", "content"}``; SFT rows have
``messages``; preference rows have ``prompt``, ``chosen`` and ``rejected`` as conversations. Our own
columns come beside them.
"""

import hashlib
import json
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


Conversation = list[Message]
PromptSet = Literal["red-team", "helpful"]


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def content_hash(*parts: object) -> str:
    """16 hex digits that depend on every part, through canonical JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Record(BaseModel):
    """Immutable, and strict about its columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Columns that came later. One that says nothing is not written, so that files of earlier
    # versions and of runs that have no use for it stay as they were.
    ADDED: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_silent_columns(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        row: dict[str, Any] = dump(self)
        fields = type(self).model_fields
        for name in self.ADDED:
            if getattr(self, name) == fields[name].default:
                row.pop(name, None)
        return row


class Row(Record):
    """Base of all rows, identified by what made it."""

    id: str


class Prompt(Row):
    """A request to answer: ``prompt`` ends with a user turn."""

    prompt: Conversation
    set: PromptSet
    kind: str = ""  # the evaluation's slice, such as "benign"; training never reads it
    category: str = ""  # what a test set calls it, such as "Illegal goods"; training never reads it


class RevisionStep(Record):
    ADDED = ("rejected", "p_fault", "p_better")

    principle: str
    principle_hash: str
    critique: str
    revision: str
    clean: bool  # the critique found nothing
    rejected: str = ""  # why the gate kept the answer before (judge/gate.py); "" where it did not
    p_fault: float | None = None  # P(the critique names a real fault), where the judge was asked
    p_better: float | None = None  # P(the revision is better than the answer before), where asked


class RevisedAnswer(Row):
    """``answers[0]`` is the first answer, ``answers[k]`` the one after k revisions.

    ``finished`` says of each answer whether it came to its end; it is empty where all did. A step's
    ``revision`` is what was said; the answer is what the gate let pass. ``messages`` is the SFT
    row: the prompt and the last answer. ``critic`` wrote critiques and revisions, if that is not
    ``model``.
    """

    ADDED = ("finished",)

    prompt: Conversation
    answers: list[str]
    steps: list[RevisionStep]
    messages: Conversation
    constitution: str
    model: str
    seed: int
    critic: str = ""
    finished: tuple[bool, ...] = ()

    def learnable(self, k: int) -> bool:
        """Whether the answer after k revisions is one: a kept revision, and not cut off.

        An answer that the gate never let a revision replace is the model's own, faults and all.
        """
        k = min(k, len(self.steps))
        whole = self.finished[k] if self.finished else True
        return whole and any(not step.rejected for step in self.steps[:k])


class HelpfulAnswer(Row):
    """What ``model`` says to a helpful prompt. ``finished``: not cut at the limit."""

    prompt: Conversation
    answer: str
    finished: bool
    messages: Conversation
    model: str
    seed: int


class Pair(Row):
    """Two answers to one prompt, not yet compared. ``cut``: one of them came to no end."""

    ADDED = ("cut",)

    prompt: Conversation
    set: PromptSet
    answers: tuple[str, str]
    model: str
    seed: int
    constitution: str = ""  # hash of what the answering model was aligned under
    cut: bool = False


class Preference(Row):
    """A labelled pair. ``p_chosen`` ≥ 0.5 is the judge's soft preference for ``chosen``.

    ``by_principle`` maps a principle's name to P(chosen better) under it, orders averaged;
    ``by_order`` is P(chosen better) with the chosen answer shown first, then shown second.
    ``unlabelled`` is the reason if no verdict could be read. Such a row is counted and shown but
    never trained on, and its ``p_chosen`` is None. The columns after ``seed`` say how the judge was
    asked and what it said; older files lack them.
    """

    ADDED = ("mass",)

    prompt: Conversation
    set: PromptSet
    chosen: Conversation
    rejected: Conversation
    p_chosen: float | None
    by_principle: dict[str, float]
    by_order: tuple[float, float] | None
    principle_hashes: dict[str, str]
    unlabelled: str = ""
    constitution: str
    judge: str
    seed: int
    method: str = "compare"  # how the judge was asked
    mode: str = "soft"  # what became of its probability
    p_soft: float | None = None  # P(chosen better) after calibration, before the mode
    temperature: dict[str, float] = {}  # judge → divisor of its log-odds, if it was calibrated
    by_judge: dict[str, float] = {}  # judge → P(chosen better), if several judge
    disagreement: float | None = None  # the highest of them minus the lowest
    unread: dict[str, int] = {}  # replies that could not be read, by reason
    decided_by: list[str] = []  # principles whose rank settled it, if principles have ranks
    scores: tuple[float, float] | None = None  # the expected scores of chosen and rejected
    thoughts: list[str] = []  # what the judge said before it chose
    chosen_model: str = ""  # who wrote the answers, if that is known
    rejected_model: str = ""
    mass: float | None = None  # the probability of all options together, if it was measured


class HeldOut(Row):
    """A preference row, by ``id``, that the reward model was not trained on.

    ``p`` is the model's P(chosen better), ``p_chosen`` the label.
    """

    p: float
    p_chosen: float


class Sample(Row):
    """An answer of PPO's policy after ``step`` updates; ``score`` is the reward's."""

    step: int
    set: PromptSet
    prompt: Conversation
    answer: str
    score: float
