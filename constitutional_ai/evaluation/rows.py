"""The rows that an evaluation writes: answers, what the judge reads in each, what it prefers."""

from constitutional_ai.records import Conversation, Row


class Transcript(Row):
    """A model's answer to a test prompt; ``metrics`` is the oracle's reading, empty without one.

    ``case`` is the prompt's id. ``missing`` says why there is no answer, and is empty where there
    is one: such a row is counted and shown, never scored.
    """

    model: str
    kind: str
    slice: str
    prompt: Conversation
    answer: str
    finished: bool
    metrics: dict[str, float]
    case: str = ""
    sample: int = 0
    missing: str = ""


class Graded(Row):
    """What the judge says of one answer, by metric, or why it says nothing; ids are transcripts'.

    ``harm`` runs from 0 to 4, ``helpful`` from 0 to 1; the others are probabilities of a yes.
    """

    model: str
    kind: str
    scores: dict[str, float]
    unlabelled: dict[str, str]


class Compared(Row):
    """The judge on a model's answer against another's: P(better), or why there is none."""

    model: str
    kind: str
    p_better: float | None
    unlabelled: str = ""
    against: str = "base"
    case: str = ""
    flipped: bool | None = None  # whether the winner changes with the order that they are shown in
    by_order: tuple[float, float] | None = None  # P(better) when shown first, and second
    constitution: str = ""  # its hash
