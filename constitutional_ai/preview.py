"""``cai run --dry-run``: the resolved settings, three real prompts, and what the run will take.

The seconds come from a small batch that the run's own model answers and reads here and now. They
are rough: what a stage does besides generating, reading and training is not counted.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from constitutional_ai import prompts as templates
from constitutional_ai.constitution import Constitution, Principle, Use, load_constitution
from constitutional_ai.data import load_prompts
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.errors import UserError
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.settings import Settings

SAMPLE = 32  # prompts that are answered to measure the speed
TRAINING_COST = 3.0  # a training step costs about three forward passes: one on, two back


@dataclass(frozen=True)
class Speed:
    """Tokens a second, and tokens of an answer and of a prompt. ``source`` says how it is known."""

    generated: float
    read: float
    answer: float
    prompt: float
    source: str


@dataclass(frozen=True)
class Work:
    """What a stage asks for: calls of the model, and tokens by what is done with them."""

    calls: int = 0
    generated: float = 0
    read: float = 0
    trained: float = 0

    def seconds(self, speed: Speed) -> float:
        reading = (self.read + TRAINING_COST * self.trained) / speed.read
        return self.generated / speed.generated + reading


# Taken when the model cannot be tried: about the lab's S model on two cores.
ASSUMED = Speed(4000, 70_000, 40, 60, "assumed: 4,000 tokens/s written, 70,000 read")


def dry_run(settings: Settings, engine: Engine | None, reason: str = "") -> str:
    """All of the preview as text. Without an engine the speed is assumed, and ``reason`` told."""
    constitution = load_constitution(settings.constitution)
    speed = measure(settings, constitution, engine) if engine else ASSUMED
    source = f"{speed.source} ({reason})" if reason else speed.source
    sections = [
        settings.to_toml(),
        *(f"# {name}\n{shown(made)}" for name, made in rendered(settings, constitution).items()),
        f"{table(work_by_stage(settings, speed), settings.rounds, speed)}\nSpeed {source}",
    ]
    return "\n\n".join(section.strip() for section in sections)


def rendered(settings: Settings, constitution: Constitution) -> dict[str, Conversation]:
    """A critique, a revision and a comparison, each of another real prompt, under drawn principles.

    What a model will say is not known yet, and stands as an ellipsis.
    """
    prompts = load_prompts(settings.prompts.red_team, "red-team", 3, settings.seed)
    one, two, three = (prompts * 3)[:3]  # a file may hold fewer than three

    def drawn(use: Use, number: int) -> Principle:
        return constitution.draw(use, "red-team", 1, settings.seed, "preview", number)[0]

    fence = content_hash(settings.seed, "preview")[:8] if settings.label.fence else ""
    return {
        "critique": templates.critique(one.prompt, "…", drawn("critique", 1)),
        "revision": templates.revision(two.prompt, "…", "…", drawn("critique", 2)),
        "comparison": templates.comparison(three.prompt, "…", "…", drawn("preference", 3), fence),
    }


def shown(conversation: Conversation) -> str:
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in conversation)


def measure(settings: Settings, constitution: Constitution, engine: Engine) -> Speed:
    """Let the model answer and judge ``SAMPLE`` prompts; a first small batch warms it up."""
    prompts = load_prompts(settings.prompts.red_team, "red-team", SAMPLE, settings.seed)
    asked = [prompt.prompt for prompt in prompts]
    sampling = Sampling(1.0, max_new_tokens=settings.revise.max_new_tokens, seed=settings.seed)
    engine.generate(asked[:2], sampling)
    began = time.perf_counter()
    replies = engine.generate(asked, sampling)
    writing = time.perf_counter() - began
    principle = constitution.usable("preference", "red-team")[0]
    judged = [
        templates.comparison(prompt, reply.text, reply.text, principle)
        for prompt, reply in zip(asked, replies, strict=True)
    ]
    began = time.perf_counter()
    engine.option_logprobs(judged, templates.OPTIONS)
    reading = time.perf_counter() - began
    answer = max(fmean(reply.tokens for reply in replies), 1.0)
    tokens_each = answer / max(fmean(len(reply.text) for reply in replies), 1.0)
    prompt = _characters(asked) * min(tokens_each, 1.0)
    read = _characters(judged) * min(tokens_each, 1.0)
    return Speed(
        generated=answer * len(asked) / writing,
        read=read * len(asked) / reading,
        answer=answer,
        prompt=prompt,
        source=f"measured here on {len(asked)} prompts",
    )


def _characters(conversations: Sequence[Conversation]) -> float:
    return fmean(len(shown(conversation)) for conversation in conversations)


def work_by_stage(settings: Settings, speed: Speed) -> dict[str, Work]:
    """One round's work, from the settings' counts; every answer is of the average length."""
    s, answer, turn = settings, speed.answer, speed.prompt + speed.answer
    revise_calls = s.revise.prompts * (1 + 2 * s.revise.rounds)
    pairs = s.sample.red_team + s.sample.helpful
    labels = 2 * pairs * s.label.principles  # both orders
    rollouts = s.ppo.steps * s.ppo.rollouts
    watched = 0
    if s.ppo.monitor != "off":
        watched = s.ppo.monitor_prompts * (1 + s.ppo.steps // s.ppo.monitor_every)
    tuned = s.revise.rounds if s.finetune.every_revision else 1  # models, one a revision
    models = tuned + 2
    tests = s.evaluate.harmful + s.evaluate.benign + s.evaluate.borderline + s.evaluate.facts
    return {
        "revise": Work(revise_calls, revise_calls * answer, revise_calls * 2 * turn),
        "finetune": Work(
            s.finetune.helpful,
            s.finetune.helpful * answer,
            trained=tuned * s.finetune.epochs * (s.revise.prompts + s.finetune.helpful) * turn,
        ),
        "sample": Work(2 * pairs, 2 * pairs * answer, 2 * pairs * speed.prompt),
        "label": Work(labels, read=labels * (turn + answer)),
        "reward": Work(2 * pairs, trained=s.reward.epochs * 2 * pairs * turn),
        "ppo": Work(
            rollouts + watched,
            (rollouts + watched) * answer,
            (3 * rollouts + 2 * watched) * turn,  # policy, reference and reward model read each
            s.ppo.epochs * rollouts * turn,
        ),
        "evaluate": Work(models * tests, models * tests * answer, models * tests * speed.prompt),
        "report": Work(),
    }


def table(work: dict[str, Work], rounds: int, speed: Speed) -> str:
    """The estimate, a line for each stage and one for the sum over all rounds."""
    lines = [f"{'stage':<10}{'calls':>10}{'written':>12}{'read':>12}{'trained':>12}{'seconds':>9}"]
    total = 0.0
    for name, stage in work.items():
        times = 1 if name in ("evaluate", "report") else rounds
        seconds = times * stage.seconds(speed)
        total += seconds
        tokens = "".join(
            f"{times * count:>12,.0f}" for count in (stage.generated, stage.read, stage.trained)
        )
        lines.append(f"{name:<10}{times * stage.calls:>10,}{tokens}{seconds:>9.0f}")
    lines.append(f"{'all':<10}{'':>46}{total:>9.0f}")
    return "\n".join(lines)


def engine_or_reason(settings: Settings) -> tuple[Engine | None, str]:
    """The run's engine, or why there is none."""
    from constitutional_ai.engines.local import LocalEngine

    model = settings.model
    try:
        return (
            LocalEngine(
                model.path, dtype=model.dtype, device=model.device, threads=settings.threads
            ),
            "",
        )
    except UserError as error:
        return None, str(error)
