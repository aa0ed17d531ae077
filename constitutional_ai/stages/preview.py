"""``cai run --dry-run``: what the run will take, three real prompts, and the resolved settings.

The seconds come from a small batch that the run's own model answers and reads here and now. They
are rough: what a stage does besides generating, reading and training is not counted. Where the
model is not on this machine, or too large to be tried on it, a speed is assumed, and said to be:
nothing is downloaded, and no server is asked, for a preview.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from constitutional_ai import prompts as templates
from constitutional_ai.data.cases import load_cases
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.errors import UserError
from constitutional_ai.judge.methods import seen
from constitutional_ai.principles import Constitution, Principle, Use, load_constitution
from constitutional_ai.records import Conversation, PromptSet, content_hash
from constitutional_ai.settings import ModelSettings, Settings
from constitutional_ai.world import LAB

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

# A model whose size its name tells is assumed to run on one GPU that makes use of this much of its
# arithmetic. A forward takes two operations a weight and token (Kaplan et al. 2020, section 2.1).
GPU_FLOPS = 1e14
WRITTEN_TO_READ = 3  # tokens read in the time of one written, in large batches
# Tokens a second, however small the model: each step of decoding through transformers has its own
# cost, 33 ms at 0.5B on an H200, measured with 128 rows (bench/RESULTS.md).
MOST_WRITTEN = 4_000
ANSWER_SHARE = 0.625  # of the most that an answer may take
CPU_WEIGHTS = 1e9  # more are not tried without a GPU


def dry_run(settings: Settings, engine: Engine | None, reason: str = "") -> str:
    """All of the preview as text. Without an engine the speed is assumed, and ``reason`` told."""
    constitution = load_constitution(settings.constitution)
    speed = measure(settings, constitution, engine) if engine else assumed(settings)
    source = f"{speed.source} ({reason})" if reason else speed.source
    work = work_by_stage(held(settings), speed)
    sections = [
        f"{table(work, settings.rounds, speed)}\nSpeed {source}{others(settings)}",
        *(f"# {name}\n{shown(made)}" for name, made in rendered(settings, constitution).items()),
        f"# settings\n{settings.to_toml()}",
    ]
    return "\n\n".join(section.strip() for section in sections)


def held(settings: Settings) -> Settings:
    """The settings with no count above what the prompt files hold."""
    sources = settings.prompts

    def most(source: str, prompts: PromptSet, wanted: int) -> int:
        if source == LAB or not wanted:
            return wanted
        return len(load_prompts(source, prompts, wanted, settings.seed))

    revise, sample = settings.revise, settings.sample
    helpful = most(sources.helpful, "helpful", settings.finetune.helpful)
    counts: dict[str, dict[str, int]] = {
        "revise": {"prompts": most(sources.red_team, "red-team", revise.prompts)},
        "finetune": {"helpful": helpful},
        "sample": {
            "red_team": most(sources.red_team, "red-team", sample.red_team),
            "helpful": most(sources.helpful, "helpful", sample.helpful),
        },
    }
    if sources.test != LAB:
        kinds = ("harmful", "benign", "borderline", "facts")
        limits = {kind: getattr(settings.evaluate, kind) for kind in kinds}
        cases = load_cases(sources.test, limits)
        counts["evaluate"] = dict.fromkeys(kinds, 0) | {"harmful": len(cases)}
    tables = {name: getattr(settings, name).model_copy(update=u) for name, u in counts.items()}
    return settings.model_copy(update=tables)


def assumed(settings: Settings) -> Speed:
    """A speed from the size in the model's name, as in Qwen2.5-0.5B; without one the lab's."""
    answer = ANSWER_SHARE * settings.revise.max_new_tokens
    weights = weights_by_name(settings.model.path)
    if weights is None:
        return replace(ASSUMED, answer=answer)
    read = GPU_FLOPS / (2 * weights)
    written = min(read / WRITTEN_TO_READ, MOST_WRITTEN)
    source = (
        f"assumed, for {weights / 1e9:g} billion weights on one large GPU:"
        f" {written:,.0f} tokens/s written, {read:,.0f} read"
    )
    return Speed(written, read, answer, ASSUMED.prompt, source)


def weights_by_name(path: str) -> float | None:
    """How many weights a model has by its name.

    >>> weights_by_name("Qwen/Qwen2.5-0.5B-Instruct"), weights_by_name("openai-community/gpt2")
    (500000000.0, None)
    """
    found = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", path.lower())
    if not found:
        return None
    number, unit = found[-1]
    return float(number) * {"b": 1e9, "m": 1e6}[unit]


def needs_gpu(model: ModelSettings) -> bool:
    """Whether a model is too large, by its name, for this machine, which has no GPU."""
    import torch

    return (weights_by_name(model.path) or 0) > CPU_WEIGHTS and not torch.cuda.is_available()


def others(settings: Settings) -> str:
    """A line on the models that are not the one whose speed is told, where there are any."""
    more = {"critic": settings.revise.critic, "helper": settings.finetune.helper}
    named = [f"{name} {spec}" for name, spec in more.items() if spec != "self"]
    judges = [settings.label.judge, *settings.label.jury]
    named += [f"judge {judge}" for judge in judges if judge not in ("base", "sl-cai")]
    return f"\nCounted as if as fast as the model itself: {', '.join(named)}" if named else ""


def rendered(settings: Settings, constitution: Constitution) -> dict[str, Conversation]:
    """A critique, a revision and a comparison, each of another real prompt, under drawn principles.

    What a model will say is not known yet, and stands as an ellipsis.
    """
    prompts = load_prompts(settings.prompts.red_team, "red-team", 3, settings.seed)
    one, two, three = (prompts * 3)[:3]  # a file may hold fewer than three

    def drawn(use: Use, number: int) -> Principle:
        return constitution.draw(use, "red-team", 1, settings.seed, "preview", number)[0]

    fence = content_hash(settings.seed, "preview")[:8] if settings.label.fence else ""
    named = constitution.principle
    worked = constitution.worked_revisions(settings.revise.exemplars)
    judged = constitution.worked_comparisons(settings.label.exemplars)
    by_one, by_two, by_three = drawn("critique", 1), drawn("critique", 2), drawn("preference", 3)
    return {
        "critique": templates.after_examples(
            [templates.worked_critique(example, by_one, named) for example in worked],
            templates.critique(one.prompt, "…", by_one),
        ),
        "revision": templates.after_examples(
            [templates.worked_revision(example, by_two, named) for example in worked],
            templates.revision(two.prompt, "…", "…", by_two),
        ),
        "comparison": templates.after_examples(
            [templates.worked_comparison(example, by_three, named, fence) for example in judged],
            templates.comparison(seen(three.prompt, settings.label), "…", "…", by_three, fence),
        ),
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
    calls_a_round = 2 if s.revise.critique else 1
    revise_calls = s.revise.prompts * (1 + calls_a_round * s.revise.rounds)
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
    """The run's engine if it is here and small enough to be tried, or why there is none."""
    from constitutional_ai.engines.local import LocalEngine

    model, threads = settings.model, settings.threads
    if needs_gpu(model):
        return None, "not tried: too large for a machine without a GPU"
    try:
        return LocalEngine.load(model.path, model.dtype, model.device, threads, offline=True), ""
    except UserError as error:
        return None, str(error)
