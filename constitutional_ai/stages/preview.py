"""``cai run --dry-run``: what a run will cost, three of its requests, and all of its settings.

The model answers and reads a small batch here and now, to measure its speed. If it is not on this
machine, or too large for it, a speed is assumed, and the preview says so. Nothing is downloaded and
no server is asked; a GGUF file is unpacked, as the run would do it.
"""

from constitutional_ai import prompts as templates
from constitutional_ai.data.cases import load_cases
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.base import Engine
from constitutional_ai.errors import UserError
from constitutional_ai.job import SELF
from constitutional_ai.judge.methods import seen
from constitutional_ai.principles import Constitution, Principle, Use, load_constitution
from constitutional_ai.records import Conversation, Prompt, PromptSet, content_hash
from constitutional_ai.settings import ModelSettings, Settings
from constitutional_ai.stages.costs import assumed, measure, table, weights_of, work_by_stage
from constitutional_ai.stages.revise import Draft, Requests
from constitutional_ai.world import LAB

CPU_WEIGHTS = 1e9  # a model with more of them is not tried without a GPU
UNSAID = "…"  # what a model has not said yet


def dry_run(settings: Settings, engine: Engine | None, reason: str = "") -> str:
    """The whole preview as text. Without an engine the speed is assumed, for the ``reason``."""
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
    judges = [settings.label.judge, *settings.label.jury]
    named += [f"judge {judge}" for judge in judges if judge not in ("base", "sl-cai")]
    return f"\nCounted as if as fast as the model itself: {', '.join(named)}" if named else ""


def rendered(settings: Settings, constitution: Constitution) -> dict[str, Conversation]:
    """A critique, a revision and a comparison, each of another real prompt, as they are asked.

    Principles are drawn. What a model will say is not known yet and appears as an ellipsis.
    """
    prompts = load_prompts(settings.prompts.red_team, "red-team", 3, settings.seed)
    one, two, three = (prompts * 3)[:3]  # a file may hold fewer than three

    def drawn(use: Use, number: int) -> Principle:
        return constitution.draw(use, "red-team", 1, settings.seed, "preview", number)[0]

    requests = Requests(constitution, constitution.worked_revisions(settings.revise.exemplars))
    criticised = Draft(one, [UNSAID], principle=drawn("critique", 1))
    revised = Draft(two, [UNSAID], principle=drawn("critique", 2), critique=UNSAID)
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
