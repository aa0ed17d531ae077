"""``cai run --dry-run``: what a run will cost, three of its requests, and all of its settings.

The model answers and reads a small batch here and now, to measure its speed. If it is not on this
machine, or too large for it, a speed is assumed, and the preview says so. Nothing is downloaded and
no server is asked; a GGUF file is unpacked, as the run would do it.
"""

from collections.abc import Callable, Iterator

from constitutional_ai import prompts as templates
from constitutional_ai.data import sources
from constitutional_ai.data.cases import load_cases
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.base import Engine, Own
from constitutional_ai.errors import UserError
from constitutional_ai.job import SELF
from constitutional_ai.judge.methods import seen
from constitutional_ai.principles import Constitution, Principle, Use, load_constitution
from constitutional_ai.records import Conversation, Prompt, PromptSet, content_hash
from constitutional_ai.setting_table import MOST
from constitutional_ai.settings import ModelSettings, Settings
from constitutional_ai.stages.costs import assumed, measure, table, weights_of, work_by_stage
from constitutional_ai.stages.drafts import Draft, Requests
from constitutional_ai.world import LAB

CPU_WEIGHTS = 1e9  # a model with more of them is not tried without a GPU
UNSAID = "…"  # what a model has not said yet
PLACES = 5  # of prompts that are too long

Fits = Callable[[Conversation], bool]


def dry_run(settings: Settings, engine: Engine | None, reason: str = "") -> str:
    """The whole preview as text. Without an engine the speed is assumed, for the ``reason``."""
    constitution = load_constitution(settings.constitution)
    speed = measure(settings, constitution, engine) if engine else assumed(settings)
    source = f"{speed.source} ({reason})" if reason else speed.source
    fits = fitting_in(engine)
    work = work_by_stage(held(settings, fits), speed, constitution)
    lines = [*drawn_with(settings, engine), *too_long(settings, fits)]
    sections = [
        f"{table(work, settings.rounds, speed)}\nSpeed {source}{others(settings)}",
        "\n".join(lines),
        *(f"# {name}\n{shown(made)}" for name, made in rendered(settings, constitution).items()),
        f"# settings\n{settings.to_toml()}",
    ]
    return "\n\n".join(section.strip() for section in sections)


def fitting_in(engine: Engine | None) -> Fits:
    """Whether a prompt fits the context of the model that is here; all do where none is."""
    from constitutional_ai.engines.local import LocalEngine

    return engine.reads if isinstance(engine, LocalEngine) else _any


def _any(conversation: Conversation) -> bool:
    return True


def drawn_with(settings: Settings, engine: Engine | None) -> Iterator[str]:
    """What each stage that answers draws with, and who says so."""
    for word in ("revise", "sample", "evaluate"):
        table = getattr(settings, word)
        parts = []
        for name in Own._fields:
            given = getattr(table, name)
            own = getattr(engine.own, name) if engine else None
            value = own if given is None else given
            origin = "the model's own" if given is None else "the run file"
            parts.append(f"{name} {origin}" if value is None else f"{name} {value:g} ({origin})")
        yield f"{word} draws with {', '.join(parts)}"


def too_long(settings: Settings, fits: Fits) -> Iterator[str]:
    """A line for each source with prompts that fill the model's context: their rows will fail."""
    for name, source in settings.prompts:
        if source == LAB:
            continue
        reading = sources.read(source)
        long = [row.number for row in reading.prompts if not fits(row.prompt)]
        if long:
            places = ", ".join(reading.table.place(number) for number in long[:PLACES])
            more = ", …" if len(long) > PLACES else ""
            yield (
                f"prompts.{name}: {len(long)} of {len(reading.prompts)} prompts leave no room for"
                f" an answer in the model's context, and fail: {places}{more}"
            )


def held(settings: Settings, fits: Fits = _any) -> Settings:
    """The settings with no count above what the prompt files hold that the model can answer."""
    named = settings.prompts

    def most(source: str, prompts: PromptSet, wanted: int) -> int:
        if source == LAB or not wanted:
            return wanted
        drawn = load_prompts(source, prompts, wanted, settings.seed)
        return sum(fits(prompt.prompt) for prompt in drawn)

    revise, sample = settings.revise, settings.sample
    helpful = most(named.helpful, "helpful", settings.finetune.helpful)
    watched = settings.ppo.monitor_prompts // 2  # of a set, and a fifth of a file at most
    files: tuple[tuple[str, PromptSet], ...] = (
        (named.red_team, "red-team"),
        (named.helpful, "helpful"),
    )
    apart = [
        watched if source == LAB else min(watched, most(source, prompts, MOST) // 5)
        for source, prompts in files
    ]
    counts: dict[str, dict[str, int]] = {
        "ppo": {"monitor_prompts": sum(apart)},
        "revise": {"prompts": most(named.red_team, "red-team", revise.prompts)},
        "finetune": {"helpful": helpful},
        "sample": {
            "red_team": most(named.red_team, "red-team", sample.red_team),
            "helpful": most(named.helpful, "helpful", sample.helpful),
        },
    }
    if named.test != LAB:
        kinds = ("harmful", "benign", "borderline", "facts")
        limits = {kind: getattr(settings.evaluate, kind) for kind in kinds}
        cases = [case for case in load_cases(named.test, limits) if fits(case.prompt)]
        counts["evaluate"] = dict.fromkeys(kinds, 0) | {"harmful": len(cases)}
    tables = {name: getattr(settings, name).model_copy(update=u) for name, u in counts.items()}
    return settings.model_copy(update=tables)


def needs_gpu(model: ModelSettings) -> bool:
    """Whether a model is too large, by its file or name, for this machine, which has no GPU."""
    if (weights_of(model.path) or 0) <= CPU_WEIGHTS:
        return False
    import torch

    return not torch.cuda.is_available()


def others(settings: Settings) -> str:
    """A line about models whose speed is not known; "" if the run asks no other model."""
    more = {"critic": settings.revise.critic, "helper": settings.finetune.helper}
    named = [f"{name} {spec}" for name, spec in more.items() if spec != SELF]
    judges = [settings.label.judge, *settings.label.jury, settings.evaluate.judge]
    named += [f"judge {judge}" for judge in judges if judge not in ("", "base", "sl-cai")]
    return f"\nCounted as if as fast as the model itself: {', '.join(named)}" if named else ""


def rendered(settings: Settings, constitution: Constitution) -> dict[str, Conversation]:
    """A critique, a revision and a comparison, each of another real prompt, as they are asked.

    Principles are drawn. What a model will say is not known yet and appears as an ellipsis.
    """
    prompts = load_prompts(settings.prompts.red_team, "red-team", 3, settings.seed)
    one, two, three = (prompts * 3)[:3]  # a file may hold fewer than three

    def drawn(use: Use, number: int) -> Principle:
        return constitution.draw(use, "red-team", 1, settings.seed, "preview", number)[0]

    worked = constitution.worked_revisions(settings.revise.exemplars)
    requests = Requests(constitution, worked, settings.revise.form, seed=settings.seed)
    criticised = Draft(one, [UNSAID], [True], principle=drawn("critique", 1))
    revised = Draft(two, [UNSAID], [True], principle=drawn("critique", 2), critique=UNSAID)
    asked = {"critique": requests.critique(criticised)}
    if not settings.revise.critique:
        asked, revised.critique = {}, None
    asked["revision"] = requests.revision(revised)
    asked["comparison"] = _comparison(settings, constitution, three, drawn("preference", 3))
    return asked


def _comparison(
    settings: Settings, constitution: Constitution, prompt: Prompt, principle: Principle
) -> Conversation:
    fence = content_hash(settings.seed, "preview")[:8] if settings.label.fence else ""
    judged = constitution.worked_comparisons(settings.label.exemplars)
    return templates.after_examples(
        [templates.worked_comparison(e, principle, constitution.principle, fence) for e in judged],
        templates.comparison(seen(prompt.prompt, settings.label), UNSAID, UNSAID, principle, fence),
    )


def shown(conversation: Conversation) -> str:
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in conversation)


def engine_or_reason(settings: Settings) -> tuple[Engine | None, str]:
    """The run's engine if its model is here and small enough, or why there is none."""
    from constitutional_ai.engines.local import LocalEngine

    model, threads = settings.model, settings.threads
    if needs_gpu(model):
        return None, "not tried: too large for a machine without a GPU"
    try:
        return LocalEngine.load(model.path, model.dtype, model.device, threads, offline=True), ""
    except UserError as error:
        return None, str(error)
