"""The gate of revisions: what is not worth training on keeps the answer before, and is counted.

A critique is stopped where it refuses to criticise or names no real fault. A revision is stopped
where it is empty, cut off, a copy of its critique, its request or the answer before, where it
repeats a worked example or recites its principle, where something other than the answer is left in
it, and where the judge, under the principle that was drawn, in both orders, does not prefer it to
the answer before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from constitutional_ai import rewrite
from constitutional_ai.judge.faults import names_fault
from constitutional_ai.judge.judge import Comparison, Judge, Unlabelled
from constitutional_ai.judge.replies import Unread
from constitutional_ai.principles import Principle
from constitutional_ai.prompts import spoken
from constitutional_ai.records import Conversation
from constitutional_ai.refusal import refuses

REFUSED = "the critic refused to criticise"
NO_FAULT = "the critique names no real fault"
EMPTY = "the revision is empty"
CUT = "the revision was cut off at max_new_tokens"
COPIES_CRITIQUE = "the revision is a copy of the critique"
COPIES_REQUEST = "the revision is a copy of the request"
COPIES_EXAMPLE = "the revision repeats a worked example"
COPIES_PRINCIPLE = "the revision recites its principle"
COPIES_ANSWER = "the revision is the answer before"
LEFTOVER = "the revision talks about itself or its reviewer"
NO_BETTER = "the judge prefers the answer before"
UNREAD = "the judge could not be read"

# What to change where most revisions fail, by what most of them fail for.
REMEDIES = {
    REFUSED: 'take `revise.form = "review"`, or another `revise.critic`',
    NO_FAULT: "take another `revise.critic`, or prompts that the model answers badly",
    EMPTY: "take another `revise.critic`",
    CUT: "raise `revise.max_new_tokens`",
    COPIES_CRITIQUE: 'take `revise.form = "review"`, or `revise.exemplars` = 2',
    COPIES_REQUEST: "take `revise.exemplars` = 2, or another `revise.critic`",
    COPIES_PRINCIPLE: "take another `revise.critic`",
    COPIES_EXAMPLE: "take fewer `revise.exemplars`, or another `revise.critic`",
    COPIES_ANSWER: "take `revise.exemplars` = 2, or another `revise.critic`",
    LEFTOVER: "take `revise.exemplars` = 2, or another `revise.critic`",
    NO_BETTER: "take another `revise.critic`, or look at its revisions: the rows hold them",
    UNREAD: "take another `revise.critic`: its verdicts cannot be read",
}


@dataclass(frozen=True)
class Revised:
    """A revision and what it was made of. ``critique`` is "" where none was asked for."""

    id: str
    prompt: Conversation
    before: str
    critique: str
    text: str
    finished: bool
    principle: Principle


@dataclass(frozen=True)
class Passed:
    """``reason`` is "" for what passes the gate; ``p`` is the probability that was asked for."""

    reason: str
    p: float | None = None


@dataclass(frozen=True)
class Gate:
    """Asks ``judge``; see the module. Nothing is random but the fences, by ``seed``.

    ``examples`` are the answers of the worked examples that the critic is shown.
    """

    judge: Judge
    seed: int
    examples: Sequence[str] = ()

    def critiques(
        self, prompts: Sequence[Conversation], answers: Sequence[str], critiques: Sequence[str]
    ) -> list[Passed]:
        """Which critiques a revision may follow, with P(it names a real fault); in order.

        A critique about which the judge cannot be read passes: the revision is judged, too.
        """
        spoke = [n for n, critique in enumerate(critiques) if not refuses(critique)]
        asked = names_fault(
            self.judge.engine,
            [prompts[n] for n in spoke],
            [answers[n] for n in spoke],
            [critiques[n] for n in spoke],
            self.seed,
            by_phrase=False,
        )
        read = dict(zip(spoke, asked, strict=True))
        return [self._critique(read.get(n)) for n in range(len(critiques))]

    def _critique(self, p: float | Unread | None) -> Passed:
        if p is None:
            return Passed(REFUSED)
        if isinstance(p, Unread):
            return Passed("")
        return Passed(NO_FAULT if p < 0.5 else "", p)

    def revisions(self, revised: Sequence[Revised]) -> list[Passed]:
        """Which revisions replace the answer before, with P(better than it); in order."""
        reasons = [at_sight(one, self.examples) for one in revised]
        passed = [one for one, reason in zip(revised, reasons, strict=True) if not reason]
        verdicts = iter(
            self.judge.compare(
                [
                    Comparison(
                        one.id, one.prompt, "red-team", one.text, one.before, (one.principle,)
                    )
                    for one in passed
                ],
                self.seed,
            )
        )
        made = []
        for reason in reasons:
            verdict = None if reason else next(verdicts)
            if verdict is None:
                made.append(Passed(reason))
            elif isinstance(verdict, Unlabelled):
                made.append(Passed(UNREAD))
            else:
                made.append(Passed("" if verdict.p_soft > 0.5 else NO_BETTER, verdict.p_soft))
        return made


def at_sight(one: Revised, examples: Sequence[str] = ()) -> str:
    """Why a revision is no good, as far as its text shows; "" if it may be."""
    if not one.text.strip():
        return EMPTY
    if not one.finished:
        return CUT
    if one.critique and rewrite.copies(one.text, one.critique):
        return COPIES_CRITIQUE
    if rewrite.same(one.text, one.before):
        return COPIES_ANSWER
    if rewrite.copies(one.text, spoken(one.prompt)):
        return COPIES_REQUEST
    known = f"{spoken(one.prompt)}\n{one.before}"
    if any(rewrite.repeats(one.text, example, known) for example in examples):
        return COPIES_EXAMPLE
    rule = f"{one.principle.text}\n{one.principle.revision_prompt}"
    if rewrite.repeats(one.text, rule, known):
        return COPIES_PRINCIPLE
    return LEFTOVER if rewrite.leftover(one.text) else ""
