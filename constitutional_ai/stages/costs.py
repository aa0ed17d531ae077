"""What a run will cost: calls, tokens and seconds of each stage.

The seconds are rough. What a stage does besides generating, reading and training is not counted.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from constitutional_ai import prompts as templates
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines import gguf_file
from constitutional_ai.engines.ask import sampling_of
from constitutional_ai.engines.base import Engine
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import DataError
from constitutional_ai.judge.questions import questions_for
from constitutional_ai.principles import Constitution
from constitutional_ai.records import Conversation, PromptSet
from constitutional_ai.settings import Settings
from constitutional_ai.stage_list import ONCE, words_of
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


# For a model that cannot be tried here: about the laboratory's S on two cores.
ASSUMED = Speed(4000, 70_000, 40, 60, "assumed: 4,000 tokens/s written, 70,000 read")

# A model whose size is known is assumed to run on one GPU. So many operations a second are
# made use of. A forward takes two operations a weight and token (Kaplan et al. 2020, section 2.1).
GPU_FLOPS = 1e14
WRITTEN_TO_READ = 3  # tokens read in the time of one written, in large batches
# Tokens a second, however small the model. Each step of decoding through transformers has a cost of
# its own: 33 ms at 0.5B on an H200, measured with 128 rows (bench/RESULTS.md).
MOST_WRITTEN = 4_000
ANSWER_SHARE = 0.625  # of the most that an answer may take


def assumed(settings: Settings) -> Speed:
    """A speed by the model's size, as Qwen2.5-0.5B has it in its name, or that of ``lab:s``."""
    answer = ANSWER_SHARE * settings.revise.max_new_tokens
    weights = weights_of(settings.model.path)
    if weights is None:
        return replace(ASSUMED, answer=answer)
    read = GPU_FLOPS / (2 * weights)
    written = min(read / WRITTEN_TO_READ, MOST_WRITTEN)
    source = (
        f"assumed, for {weights / 1e9:g} billion weights on one large GPU:"
        f" {written:,.0f} tokens/s written, {read:,.0f} read"
    )
    return Speed(written, read, answer, ASSUMED.prompt, source)


def weights_of(model: str) -> float | None:
    """How many weights a model has by its GGUF file, or else by its name. Raises ModelError."""
    spec = ModelSpec.parse(model)
    if spec.kind == "gguf":
        return gguf_file.read(Path(spec.name)).weights
    return weights_by_name(model)


def weights_by_name(path: str) -> float | None:
    """How many weights a model has by its name.

    >>> weights_by_name("Qwen/Qwen2.5-0.5B-Instruct"), weights_by_name("openai-community/gpt2")
    (500000000.0, None)
    """
    sizes = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", path.lower())
    if not sizes:
        return None
    number, unit = sizes[-1]
    return float(number) * {"b": 1e9, "m": 1e6}[unit]


def measure(settings: Settings, constitution: Constitution, engine: Engine) -> Speed:
    """Let the model answer and judge ``SAMPLE`` prompts; a first small batch warms it up."""
    prompts = load_prompts(settings.prompts.red_team, "red-team", SAMPLE, settings.seed)
    asked = [prompt.prompt for prompt in prompts]
    sampling = sampling_of(settings.revise, settings.seed)
    engine.generate(asked[:2], sampling)
    began = time.perf_counter()
    made = engine.generate(asked, sampling)
    writing = time.perf_counter() - began
    both = [(turns, reply) for turns, reply in zip(asked, made, strict=True) if not reply.failed]
    asked, replies = [turns for turns, _ in both], [reply for _, reply in both]
    if not replies:
        raise DataError(f"no prompt could be answered: {made[0].failed}")
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
    return fmean(sum(len(turn["content"]) for turn in turns) for turns in conversations)


def work_by_stage(
    settings: Settings, speed: Speed, constitution: Constitution | None = None
) -> dict[str, Work]:
    """One round's work, from the settings' counts; every answer is of the average length.

    With a ``constitution`` no pair is judged under more principles than it has.
    """
    s, answer, turn = settings, speed.answer, speed.prompt + speed.answer
    calls_a_round = 2 if s.revise.critique else 1
    revise_calls = s.revise.prompts * (1 + calls_a_round * s.revise.rounds)
    pairs = s.sample.red_team + s.sample.helpful
    labels = judgements(s, s.sample.red_team, "red-team", constitution)
    labels += judgements(s, s.sample.helpful, "helpful", constitution)
    rollouts = s.ppo.steps * s.ppo.rollouts
    watched = 0
    if s.ppo.monitor != "off":
        watched = s.ppo.monitor_prompts * (1 + s.ppo.steps // s.ppo.monitor_every)
    tuned = s.revise.rounds if s.finetune.every_revision else 1  # models, one a revision
    models = tuned + 2
    tests = s.evaluate.harmful + s.evaluate.benign + s.evaluate.borderline + s.evaluate.facts
    answers = models * tests * s.evaluate.samples
    asked = _asked_of_answers(s, models, tests, constitution)
    found = {
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
        # the reference reads every pair once
        "dpo": Work(2 * pairs, read=2 * pairs * turn, trained=s.dpo.epochs * 2 * pairs * turn),
        "evaluate": Work(
            answers + asked, answers * answer, answers * speed.prompt + asked * (turn + answer)
        ),
        "report": Work(),
    }
    return {word: found[word] for word in words_of(s.learner)}


def judgements(
    settings: Settings, pairs: int, prompts: PromptSet, constitution: Constitution | None
) -> int:
    """Questions about pairs of one prompt set: principles × both orders × judges × samples."""
    label, principles = settings.label, settings.label.principles
    if constitution:
        principles = min(principles, len(constitution.usable("preference", prompts)))
    samples = label.samples if label.method in ("thoughts", "vote") else 1
    return 2 * pairs * principles * samples * (1 + len(label.jury))


def _asked_of_answers(
    settings: Settings, models: int, tests: int, constitution: Constitution | None
) -> int:
    """At most so many questions to the judge about answers to test prompts; the lab's oracle
    reads those of the laboratory.
    """
    if settings.prompts.test == LAB:
        return 0
    of_each, label = settings.evaluate, settings.label.judge
    judge = label if label not in ("base", "sl-cai") else settings.model.path
    questions = questions_for(judge, of_each.questions)
    tellings = sum(len(question.told) for question in questions) * of_each.grade
    pairs = {"first": models - 1, "all": models * (models - 1) // 2, "off": 0}[of_each.pairs]
    compared = judgements(settings, pairs * tests * of_each.samples, "helpful", constitution)
    return models * tests * of_each.samples * tellings + compared


def table(work: dict[str, Work], rounds: int, speed: Speed) -> str:
    """The estimate, a line for each stage and one for the sum over all rounds."""
    lines = [f"{'stage':<10}{'calls':>10}{'written':>12}{'read':>12}{'trained':>12}{'seconds':>9}"]
    total = 0.0
    for name, stage in work.items():
        times = 1 if name in ONCE else rounds
        seconds = times * stage.seconds(speed)
        total += seconds
        tokens = "".join(
            f"{times * count:>12,.0f}" for count in (stage.generated, stage.read, stage.trained)
        )
        lines.append(f"{name:<10}{times * stage.calls:>10,}{tokens}{seconds:>9.0f}")
    lines.append(f"{'all':<10}{'':>46}{total:>9.0f}")
    return "\n".join(lines)
