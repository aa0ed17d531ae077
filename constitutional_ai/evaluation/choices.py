"""What a model knows: 200 questions of our own, each with four options, read off log-probabilities.

questions.jsonl holds fifty of general knowledge, of reasoning, of English and of arithmetic, easy
to middling. A model is shown the options as A to D and reads its answer off the four letters'
probabilities, once in the file's order and once in the reverse, averaged, so that a liking for a
letter or for a place costs less. Right is the correct option alone on top. These questions tell
whether training cost a model what it knew. They rank no models, and they are in English.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from constitutional_ai.engines.base import Engine
from constitutional_ai.errors import NoLogprobs
from constitutional_ai.evaluation.each_model import each_model
from constitutional_ai.evaluation.scores import Observation
from constitutional_ai.job import Job
from constitutional_ai.records import Row, user
from constitutional_ai.store.run_folder import StageFolder

FILE = "choices.jsonl"
QUESTIONS = Path(__file__).parent / "questions.jsonl"
LETTERS = ("A", "B", "C", "D")
METRIC = "accuracy"

NO_LOGPROBS = "the model tells no log-probabilities"
NOT_FINITE = "a log-probability of the options is not a finite number"


class Choice(Row):
    """A question, its four options, and the letter of the right one."""

    category: str
    question: str
    options: tuple[str, str, str, str]
    answer: str

    @property
    def correct(self) -> int:
        return LETTERS.index(self.answer)

    def asked(self, backwards: bool) -> str:
        """The question as a model sees it."""
        options = self.options[::-1] if backwards else self.options
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True)]
        shown = "\n".join(lines)
        return f"{self.question}\n\n{shown}\n\nReply with the letter of the right answer alone."


class Chosen(Row):
    """A model's probability of each option, in the file's order; or why there is none."""

    model: str
    question: str
    category: str
    right: bool | None
    shares: tuple[float, ...] = ()
    unlabelled: str = ""


def load() -> list[Choice]:
    """The 200 questions that ship with the package."""
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    return [Choice.model_validate(json.loads(line)) for line in lines]


def measure(job: Job, folder: StageFolder, models: dict[str, str | Path]) -> list[Chosen]:
    """Every model on every question, to choices.jsonl; resumed chunk by chunk."""
    task = ("questions", "questions")
    return each_model(job, folder, FILE, Chosen, models, load(), ask, task)


def ask(engine: Engine, label: str, choices: Sequence[Choice]) -> list[Chosen]:
    """One model on some questions, in order, each asked both ways round."""
    asked = [[user(choice.asked(back))] for choice in choices for back in (False, True)]
    try:
        replies = iter(engine.option_logprobs(asked, LETTERS))
    except NoLogprobs:
        return [_row(label, choice, None, NO_LOGPROBS) for choice in choices]
    rows = []
    for choice in choices:
        forwards, backwards = _softmax(next(replies)), _softmax(next(replies))
        if forwards is None or backwards is None:
            rows.append(_row(label, choice, None, NOT_FINITE))
        else:
            both = zip(forwards, reversed(backwards), strict=True)
            rows.append(_row(label, choice, tuple((p + q) / 2 for p, q in both)))
    return rows


def _row(
    label: str, choice: Choice, shares: tuple[float, ...] | None, unlabelled: str = ""
) -> Chosen:
    right = None
    if shares is not None:
        others = [p for place, p in enumerate(shares) if place != choice.correct]
        right = shares[choice.correct] > max(others)
    return Chosen(
        id=f"{choice.id} {label}",
        model=label,
        question=choice.id,
        category=choice.category,
        right=right,
        shares=shares or (),
        unlabelled=unlabelled,
    )


def _softmax(logprobs: Sequence[float]) -> list[float] | None:
    """The options' shares of what they have together; None where a value is no number."""
    highest = max(logprobs)
    if not math.isfinite(highest) or any(map(math.isnan, logprobs)):
        return None
    weights = [math.exp(value - highest) for value in logprobs]
    return [weight / math.fsum(weights) for weight in weights]


def observed(rows: Sequence[Chosen]) -> list[Observation]:
    """As scores take them: each model's flags by question."""
    return [
        Observation(
            row.model,
            "questions",
            row.category,
            row.question,
            {} if row.right is None else {METRIC: float(row.right)},
            {METRIC: row.unlabelled} if row.unlabelled else {},
        )
        for row in rows
    ]
