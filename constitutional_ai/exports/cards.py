"""Model and data set cards: README.md with the front matter that the Hugging Face hub reads.

Every score stands with its number of answers and its interval. What a run does not know, such as
a licence, is left open in plain sight.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CardData, DatasetCardData, EvalResult, ModelCardData

from constitutional_ai.exports import paragraphs
from constitutional_ai.exports.finished import Finished

_TAGS = ["constitutional-ai", "rlaif", "alignment"]
_MODELS = {
    "rl-cai": "RL-CAI: reinforcement learning against AI feedback, from the SL-CAI model.",
    "sl-cai": "SL-CAI: finetuned on its own answers after critique and revision.",
    "reward": "The reward model: one number for an answer, fitted to the judge's soft labels.",
}
_BY_DPO = (
    "RL-CAI by direct preference optimisation on AI feedback, from the SL-CAI model. There was no"
    " reward model and no reinforcement learning."
)
_COLUMNS = {
    "revisions": "`messages` (the answer comes last), `source` (revised or helpful), `model`",
    "preferences": "`prompt`, `chosen`, `rejected`, `p_chosen` (the judge's probability that"
    " `chosen` is better), `principles` with `p_by_principle`, `prompt_set`, `judge`",
}


def _what_it_is(run: Finished, name: str) -> str:
    return _BY_DPO if name == "rl-cai" and run.learner == "dpo" else _MODELS[name]


def page(front: CardData, body: str) -> str:
    """A README.md: the front matter as YAML, then Markdown."""
    return f"---\n{front}\n---\n\n{body}"


def model_card(run: Finished, name: str, licence: str, base: str | None, principles: str) -> str:
    """The card of "rl-cai", "sl-cai" or "reward". ``base``: the start model's hub id, if known."""
    models = _scores(run)
    reward = name == "reward"
    results = None if reward else _results(models.get(name, {}))
    front = ModelCardData(
        **_licence(licence),
        base_model=base,
        library_name="transformers",
        pipeline_tag="text-classification" if reward else "text-generation",
        tags=[*_TAGS, *(["reward-model"] if reward else [])],
        model_name=f"{run.name}-{name}" if results else None,
        eval_results=results or None,
    )
    return page(
        front,
        f"""\
# {run.name}: {name}

{_what_it_is(run, name)}

{paragraphs.origin(run)}

## Licence

{_licence_text(licence)}

## Scores

{_reward_scores(run) if reward else paragraphs.scores(models, name)}

Mean with its 95% interval over n answers to held-out prompts. A score shows what was asked, and
how; it is no proof of safety.

## Constitution

{principles}

## Settings

{paragraphs.settings(run)}

## Provenance

Versions: {", ".join(f"{k} {v}" for k, v in run.versions.items())}. Round {run.round} of the run.
Start model: `{paragraphs.shown_model(run.settings.model.path)}`.

{paragraphs.left_out(run)}
""",
    )


def dataset_card(run: Finished, name: str, licence: str, rows: Mapping[str, int]) -> str:
    """The card of "revisions" or "preferences". ``rows``: how many each file has."""
    splits = [{"split": Path(file).stem, "path": file} for file in rows]
    front = DatasetCardData(
        **_licence(licence),
        pretty_name=f"{run.name} {name}",
        task_categories=["text-generation"],
        tags=[*_TAGS, "synthetic"],
        configs=[{"config_name": "default", "data_files": splits}],
    )
    return page(
        front,
        f"""\
# {run.name}: {name}

{paragraphs.origin(run)} Every answer was written by a model, harmful ones among them.

## Licence

{_licence_text(licence)}

## Rows

{paragraphs.table_of_files(rows)}

Columns: {_COLUMNS[name]}, `id`. The test split holds what the run's reward model did not train on.

{paragraphs.left_out(run)}

## Settings

{paragraphs.settings(run)}
""",
    )


def _licence(name: str) -> dict[str, Any]:
    """The front matter's licence. One that is open is "other", with a name that says so."""
    return {"license": name} if name else {"license": "other", "license_name": "not-chosen-yet"}


def _licence_text(name: str) -> str:
    if name:
        return f"`{name}`"
    return "**Not chosen yet.** Set `license` in the front matter above before you upload."


def _scores(run: Finished) -> Mapping[str, Any]:
    """Model → kind of prompts → metric → estimate; empty if the run is not evaluated."""
    if not run.done("evaluate"):
        return {}
    path = run.stage("evaluate").path / "scores.json"
    models: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["models"]
    return models


def _results(kinds: Mapping[str, Any]) -> list[EvalResult]:
    """One result for each kind of prompts and metric; n and interval are part of its name."""
    return [
        EvalResult(
            task_type="text-generation",
            dataset_name=f"{kind} prompts",
            dataset_type=f"cai-{kind}",
            metric_type=metric,
            metric_value=round(value["mean"], 4),
            metric_name="{}, n = {n}, 95% {low:.3f} to {high:.3f}".format(metric, **value),
        )
        for kind, metrics in kinds.items()
        for metric, value in metrics.items()
        if paragraphs.is_estimate(value)
    ]


def _reward_scores(run: Finished) -> str:
    counts = run.stage("reward").manifest["counts"]
    return (
        "On the label's side in {accuracy:.3f} of {n} held-out pairs ({accuracy_clear:.3f} of the"
        " {n_clear} clear ones), calibration error {ece:.3f}."
    ).format_map(counts)
