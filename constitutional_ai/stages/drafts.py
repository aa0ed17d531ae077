"""Rows of stage 1 in the making: what is asked, in which form, and what the gate lets pass.

All drafts of a chunk take each step together, because batches are fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from constitutional_ai import prompts as templates
from constitutional_ai.engines.ask import Ask
from constitutional_ai.engines.base import Completion, Engine
from constitutional_ai.judge.faults import names_fault
from constitutional_ai.judge.gate import CUT, EMPTY, Gate, Passed, Revised
from constitutional_ai.judge.judge import nonce
from constitutional_ai.judge.kinds import draw, fitting
from constitutional_ai.judge.replies import Unread
from constitutional_ai.principles import Constitution, Principle, WorkedRevision
from constitutional_ai.progress import called
from constitutional_ai.records import Conversation, Prompt, RevisionStep
from constitutional_ai.rewrite import stripped
from constitutional_ai.stage_settings import ReviseSettings

SILENCE = Completion("", 0, True)
PASSED = Passed("")


@dataclass
class Draft:
    """One row in the making. ``answers`` is one longer than ``steps`` between two rounds.

    From ``principle`` to ``passed`` the fields are of the present round: the critique is None if
    none was asked for, and ``text`` is the answer inside the revision. ``failed`` says why there
    will be no row: the model was not reached, or a request does not fit it (``unfit``).
    """

    prompt: Prompt
    answers: list[str]
    finished: list[bool]
    failed: str = ""
    unfit: bool = False
    stopped: bool = False  # a critique found nothing, and no round is to follow
    steps: list[RevisionStep] = field(default_factory=list)
    shares: dict[str, float] | Unread = field(default_factory=dict)  # judge/kinds.py
    principle: Principle | None = None
    critique: str | None = None
    criticised: Passed = PASSED
    clean: bool = False
    revision: Completion = SILENCE
    text: str = ""
    passed: Passed = PASSED

    @property
    def going(self) -> bool:
        return not (self.stopped or self.failed)

    def begin_round(self, principle: Principle) -> None:
        self.principle, self.critique, self.clean = principle, None, False
        self.revision, self.text, self.criticised, self.passed = SILENCE, "", PASSED, PASSED

    def end_round(self) -> None:
        """Make a step of what was said. What the gate stopped keeps the answer before."""
        assert self.principle is not None
        rejected = self.criticised.reason or self.passed.reason
        kept = self.stopped or bool(rejected)
        step = RevisionStep(
            principle=self.principle.name,
            principle_hash=self.principle.hash,
            critique=self.critique or "",
            revision=self.answers[-1] if self.stopped else self.revision.text,
            clean=self.clean,
            rejected=rejected,
            p_fault=self.criticised.p,
            p_better=self.passed.p,
        )
        self.steps.append(step)
        self.answers.append(self.answers[-1] if kept else self.text)
        self.finished.append(self.finished[-1] if kept else self.revision.finished)


@dataclass(frozen=True)
class Reviser:
    """Answers prompts, and criticises and rewrites every answer ``settings.rounds`` times.

    ``critic`` is the engine behind ``criticise``, asked for log-probabilities. ``gate`` is None
    where it is off: then an empty revision and one that was cut off keep the answer before, and
    nothing else does. ``by_phrase``: the critic is the laboratory's (judge/faults.py).
    """

    constitution: Constitution
    settings: ReviseSettings
    critic: Engine
    gate: Gate | None
    seed: int
    by_phrase: bool

    def revise(self, prompts: Sequence[Prompt], answer: Ask, criticise: Ask) -> list[Draft]:
        """A draft for each prompt, in order."""
        with called("answers"):
            firsts = answer([prompt.prompt for prompt in prompts])
        drafts = [
            Draft(prompt, [first.text], [first.finished], first.failed, first.unfit)
            for prompt, first in zip(prompts, firsts, strict=True)
        ]
        if self.settings.draw == "fitting":
            with called("kinds of harm"):
                shares = fitting(self.critic, prompts, self.constitution, self.seed)
            for draft, of_prompt in zip(drafts, shares, strict=True):
                draft.shares = of_prompt
        for number in range(1, self.settings.rounds + 1):
            going = [draft for draft in drafts if draft.going]
            for draft in going:
                draft.begin_round(self._principle(draft, number))
            if self.settings.critique:
                self._criticise(going, criticise)
            self._rewrite(going, criticise)
            for draft in going:
                if not draft.failed:
                    draft.end_round()
        return drafts

    def _principle(self, draft: Draft, number: int) -> Principle:
        seed = (self.seed, draft.prompt.id, number)
        if self.settings.draw == "fitting":
            return draw(self.constitution, draft.shares, *seed)
        (principle,) = self.constitution.draw("critique", "red-team", 1, *seed)
        return principle

    def _criticise(self, drafts: Sequence[Draft], ask: Ask) -> None:
        requests = self.requests
        with called("critiques"):
            replies = ask([requests.critique(draft) for draft in drafts])
        for draft, reply in zip(drafts, replies, strict=True):
            draft.critique, draft.failed, draft.unfit = reply.text, reply.failed, reply.unfit
        self._look_for_faults([draft for draft in drafts if not draft.failed])

    def _look_for_faults(self, drafts: Sequence[Draft]) -> None:
        prompts = [draft.prompt.prompt for draft in drafts]
        answers = [draft.answers[-1] for draft in drafts]
        critiques = [draft.critique or "" for draft in drafts]
        if self.gate:
            with called("critiques judged"):
                judged = self.gate.critiques(prompts, answers, critiques)
            for draft, passed in zip(drafts, judged, strict=True):
                draft.criticised = passed
                draft.clean = passed.p is not None and passed.p < 0.5
        elif self.settings.stop_when_clean or self.by_phrase:
            faults = names_fault(
                self.critic, prompts, answers, critiques, self.seed, by_phrase=self.by_phrase
            )
            for draft, p in zip(drafts, faults, strict=True):
                draft.clean = not isinstance(p, Unread) and p < 0.5
        for draft in drafts:
            draft.stopped = self.settings.stop_when_clean and draft.clean

    def _rewrite(self, drafts: Sequence[Draft], ask: Ask) -> None:
        drafts = [draft for draft in drafts if draft.going and not draft.criticised.reason]
        with called("revisions"):
            replies = ask([self.requests.revision(draft) for draft in drafts])
        for draft, reply in zip(drafts, replies, strict=True):
            draft.revision, draft.failed, draft.unfit = reply, reply.failed, reply.unfit
            draft.text = stripped(reply.text) if self.gate else reply.text
        revised = [_revised(draft) for draft in drafts if not draft.failed]
        with called("revisions judged"):
            passed = self.gate.revisions(revised) if self.gate else [*map(_ungated, revised)]
        for draft, of_draft in zip((d for d in drafts if not d.failed), passed, strict=True):
            draft.passed = of_draft

    @property
    def requests(self) -> "Requests":
        exemplars = self.constitution.worked_revisions(self.settings.exemplars)
        tokens = getattr(self.critic, "tokens", None)
        system = tokens is None or tokens.takes_system
        return Requests(self.constitution, exemplars, self.settings.form, system, self.seed)


def _revised(draft: Draft) -> Revised:
    assert draft.principle is not None
    return Revised(
        id=draft.prompt.id,
        prompt=draft.prompt.prompt,
        before=draft.answers[-1],
        critique=draft.critique or "",
        text=draft.text,
        finished=draft.revision.finished,
        principle=draft.principle,
    )


def _ungated(one: Revised) -> Passed:
    """Silence and a cut answer would teach silence and cutting off, so they never pass."""
    if not one.text.strip():
        return Passed(EMPTY)
    return PASSED if one.finished else Passed(CUT)


@dataclass(frozen=True)
class Requests:
    """What this stage asks, with worked examples before each request."""

    constitution: Constitution
    exemplars: Sequence[WorkedRevision]
    form: str = "dialogue"
    system: bool = True  # whether the critic's template has a system turn
    seed: int = 0

    def critique(self, draft: Draft) -> Conversation:
        assert draft.principle is not None
        form = self._form(draft)
        asked = form.critique(draft.prompt.prompt, draft.answers[-1], draft.principle)
        return self._after(form, "critique", draft.principle, asked)

    def revision(self, draft: Draft) -> Conversation:
        """For a rewrite after the draft's critique, or without one (paper, section 3.5)."""
        prompt, answer, principle = draft.prompt.prompt, draft.answers[-1], draft.principle
        assert principle is not None
        form = self._form(draft)
        if draft.critique is None:
            asked = form.direct(prompt, answer, principle)
            return self._after(form, "direct", principle, asked)
        asked = form.revision(prompt, answer, draft.critique, principle)
        return self._after(form, "revision", principle, asked)

    def _form(self, draft: Draft) -> templates.Form:
        if self.form == "dialogue":
            return templates.DIALOGUE
        said = [turn["content"] for turn in draft.prompt.prompt]
        # The id is the same for all, so that worked examples are read once for many rows.
        fence = nonce(self.seed, "review", *said, *draft.answers, draft.critique or "")
        return templates.review(fence, self.system)

    def _after(
        self, form: templates.Form, step: templates.Step, principle: Principle, asked: Conversation
    ) -> Conversation:
        named = self.constitution.principle
        return templates.after_examples(
            [form.worked(exemplar, principle, named, step) for exemplar in self.exemplars], asked
        )
