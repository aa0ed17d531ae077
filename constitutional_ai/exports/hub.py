"""One folder ready for the Hugging Face hub: models and data sets, each with its card.

    OUT/models/rl-cai, sl-cai, reward     as `save_pretrained` left them, with README.md
    OUT/datasets/revisions, preferences   JSONL with README.md
    OUT/UPLOAD.md                         the commands that would upload them

Nothing is uploaded. Paths of this machine, and passwords in addresses, do not go into the folder.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from constitutional_ai.exports import cards
from constitutional_ai.exports.finished import Finished
from constitutional_ai.exports.models import copy_model
from constitutional_ai.exports.rows import messages, preference
from constitutional_ai.store.whole import new_folder, rows_to

MODELS = {"rl-cai": "ppo", "sl-cai": "finetune", "reward": "reward"}
_TAGS = ["constitutional-ai", "rlaif", "alignment"]


def export(
    run: Finished, out: Path, licence: str = "", base_model: str = "", constitution: str = ""
) -> dict[str, int]:
    """Write the folder; how many rows each data set has. Raises ExportError, and writes nothing.

    Models of stages that are not finished are left out; SL-CAI must be.
    """
    run.model("finetune")
    known = cards.named_constitution(run, constitution)
    start = cards.base_model(run, base_model)
    found = {name: stage for name, stage in MODELS.items() if run.done(stage)}
    with new_folder(out) as folder:
        for name, stage in found.items():
            target = folder / "models" / name
            copy_model(run.model(stage), target)
            _depersonalised(target)
            card = model_card(
                run, name, cards.licence(licence), start, cards.principles(known, run)
            )
            (target / "README.md").write_text(card, encoding="utf-8")
        written = _data_sets(run, folder / "datasets", cards.licence(licence))
        (folder / "UPLOAD.md").write_text(_upload(run, list(found)), encoding="utf-8")
    return written


def _depersonalised(model: Path) -> None:
    """Take the path that transformers remembers a model by out of its configuration."""
    for name in ("config.json", "tokenizer_config.json"):
        file = model / name
        if not file.exists():
            continue
        data = json.loads(file.read_text(encoding="utf-8"))
        if data.keys() & {"_name_or_path", "name_or_path"}:
            data = {k: v for k, v in data.items() if k not in ("_name_or_path", "name_or_path")}
            file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _data_sets(run: Finished, folder: Path, licence: dict[str, str]) -> dict[str, int]:
    demonstrations, _ = run.demonstrations()
    preferences = run.preferences()
    splits = {
        "revisions": {"train": [messages(row) for row in demonstrations]},
        "preferences": {
            "train": [preference(row) for row in preferences.train],
            "test": [preference(row) for row in preferences.test],
        },
    }
    written: dict[str, int] = {}
    for name, parts in splits.items():
        counts: dict[str, int] = {}
        for split, rows in parts.items():
            if rows:
                file = f"data/{split}.jsonl"
                counts[file] = rows_to(folder / name / file, rows)
        card = dataset_card(run, name, counts, licence)
        (folder / name / "README.md").write_text(card, encoding="utf-8")
        written |= {f"datasets/{name}/{file}": count for file, count in counts.items()}
    return written


def model_card(
    run: Finished, name: str, licence: dict[str, str], base: str | None, principles: str
) -> str:
    """A model's README.md. ``base`` is a hub id or None, ``principles`` Markdown."""
    scores = _scores(run)
    told = {
        "rl-cai": "RL-CAI: reinforcement learning against AI feedback, from the SL-CAI model.",
        "sl-cai": "SL-CAI: finetuned on its own answers after critique and revision.",
        "reward": "The reward model: one number for an answer, fitted to the judge's soft labels.",
    }[name]
    reward = name == "reward"
    figures = _reward_figures(run) if reward else cards.scores_table(scores, name)
    front: dict[str, Any] = {
        **licence,
        "base_model": base,
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if reward else "text-generation",
        "tags": [*_TAGS, *(["reward-model"] if reward else [])],
    }
    if not reward and scores["models"].get(name):
        front["model-index"] = [model_index(f"{run.name}-{name}", scores["models"][name])]
    return cards.page(
        front,
        f"""\
# {run.name}: {name}

{told}

{cards.origin(run)}

## Licence

{cards.licence_text(licence)}

## Scores

{figures}

Mean with its 95% interval over n answers to held-out prompts. A score shows what was asked, and
how; it is no proof of safety.

## Constitution

{principles}

## Settings

{cards.settings_table(run)}

## Provenance

Versions: {", ".join(f"{k} {v}" for k, v in run.versions.items())}. Round {run.round} of the run.
Start model: `{cards.shown_model(run.settings.model.path)}`.

{cards.left_out(run)}
""",
    )


def model_index(name: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The hub's form of results: one for each kind of prompts, with n and interval beside."""
    results: dict[str, list[dict[str, Any]]] = {}
    for kind, metric, estimate in cards.estimates(kinds):
        results.setdefault(kind, []).append(
            {
                "type": metric,
                "value": round(estimate["mean"], 4),
                "name": f"{metric}, n = {estimate['n']},"
                f" 95% {estimate['low']:.3f} to {estimate['high']:.3f}",
            }
        )
    return {
        "name": name,
        "results": [
            {
                "task": {"type": "text-generation"},
                "dataset": {"name": f"{kind} prompts", "type": f"cai-{kind}"},
                "metrics": metrics,
            }
            for kind, metrics in results.items()
        ],
    }


def dataset_card(
    run: Finished, name: str, counts: Mapping[str, int], licence: dict[str, str]
) -> str:
    total = sum(counts.values())
    splits = [{"split": Path(file).stem, "path": file} for file in counts]
    columns = {
        "revisions": "`messages` (the answer comes last), `source` (revised or helpful), `model`",
        "preferences": "`prompt`, `chosen`, `rejected`, `p_chosen` (the judge's probability that"
        " `chosen` is better), `principles` with `p_by_principle`, `prompt_set`, `judge`",
    }[name]
    front = {
        **licence,
        "pretty_name": f"{run.name} {name}",
        "size_categories": [size_category(total)],
        "task_categories": ["text-generation"],
        "tags": [*_TAGS, "synthetic"],
        "configs": [{"config_name": "default", "data_files": splits}],
    }
    return cards.page(
        front,
        f"""\
# {run.name}: {name}

{cards.origin(run)} Every answer was written by a model, harmful ones among them.

## Licence

{cards.licence_text(licence)}

## Rows

{cards.table_of_files(counts)}

Columns: {columns}, `id`. The test split holds what the run's reward model did not train on.

{cards.left_out(run)}

## Settings

{cards.settings_table(run)}
""",
    )


def size_category(rows: int) -> str:
    """The hub's word for a number of rows.

    >>> size_category(999), size_category(1000), size_category(250_000)
    ('n<1K', '1K<n<10K', '100K<n<1M')
    """
    steps = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    for limit, word in (*steps, (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M")):
        if rows < limit:
            return word
    return "n>10M"


def _scores(run: Finished) -> Mapping[str, Any]:
    if not run.done("evaluate"):
        return {"models": {}}
    path = run.stage("evaluate").path / "scores.json"
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _reward_figures(run: Finished) -> str:
    counts = run.stage("reward").manifest["counts"]
    return (
        f"On the label's side in {counts['accuracy']:.3f} of {counts['n']} held-out pairs"
        f" ({counts['accuracy_clear']:.3f} of the {counts['n_clear']} clear ones), calibration"
        f" error {counts['ece']:.3f}."
    )


def _upload(run: Finished, models: list[str]) -> str:
    lines = [f"hf upload ORG/{run.name}-{name} models/{name}" for name in models]
    lines += [
        f"hf upload ORG/{run.name}-{name} datasets/{name} --repo-type dataset"
        for name in ("revisions", "preferences")
    ]
    commands = "\n".join(lines)
    return (
        "# Upload\n\nNothing has been uploaded. Choose a licence in each README.md, read the cards,"
        f" then:\n\n```sh\n{commands}\n```\n"
    )
