"""One folder ready for the Hugging Face hub: models and data sets, each with its card.

    OUT/models/rl-cai, sl-cai, reward     as `save_pretrained` left them, with README.md
    OUT/datasets/revisions, preferences   JSONL with README.md
    OUT/UPLOAD.md                         the commands that would upload them

Nothing is uploaded. Paths of this machine, and passwords in addresses, do not go into the folder.
"""

import json
import re
from pathlib import Path

from constitutional_ai.errors import ConstitutionError
from constitutional_ai.exports import cards, paragraphs
from constitutional_ai.exports.finished import Finished
from constitutional_ai.exports.models import copy_model
from constitutional_ai.exports.rows import messages, preference
from constitutional_ai.principles import Constitution, load_constitution
from constitutional_ai.store.whole import ExportError, new_folder, rows_to

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def export(
    run: Finished, out: Path, licence: str = "", base_model: str = "", constitution: str = ""
) -> dict[str, int]:
    """Write the folder; returns the rows of each file. Raises ExportError, writing nothing.

    Models of stages that are not finished are left out; SL-CAI must be.
    """
    run.model("finetune")
    principles = paragraphs.principles(run, _constitution(run, constitution))
    base = _base_model(run, base_model)
    stages = {"rl-cai": run.learner, "sl-cai": "finetune", "reward": "reward"}
    models = {name: run.model(stage) for name, stage in stages.items() if run.done(stage)}
    with new_folder(out) as folder:
        for name, model in models.items():
            target = folder / "models" / name
            copy_model(model, target)
            _forget_path(target)
            card = cards.model_card(run, name, licence, base, principles)
            (target / "README.md").write_text(card, encoding="utf-8")
        counts = _data_sets(run, folder, licence)
        (folder / "UPLOAD.md").write_text(_upload(run, list(models)), encoding="utf-8")
    return counts


def _constitution(run: Finished, file: str) -> Constitution | None:
    """The run's constitution, from ``file`` or by its name, if the hash is the run's.

    Raises ExportError if ``file`` holds another one.
    """
    name, digest = run.constitution
    try:
        constitution = load_constitution(file or name)
    except ConstitutionError:
        if file:
            raise
        return None
    if constitution.hash == digest:
        return constitution
    if not file:
        return None
    raise ExportError(
        f"{file}: is not the run's constitution ({constitution.hash}, the run's is {digest})"
    )


def _base_model(run: Finished, given: str) -> str | None:
    """The start model's hub id, or None if the run knows none. The hub refuses anything else."""
    name = (given or run.settings.model.path).partition("@")[0]
    if _HUB_ID.fullmatch(name) and not Path(name).exists():
        return name
    if given:
        raise ExportError(f"--base-model {given}: expected a hub id, such as Qwen/Qwen2.5-0.5B")
    return None


def _forget_path(model: Path) -> None:
    """Take the path that transformers remembers a model by out of its configuration."""
    for file in (model / "config.json", model / "tokenizer_config.json"):
        if file.exists():
            data = json.loads(file.read_text(encoding="utf-8"))
            kept = {k: v for k, v in data.items() if k not in ("_name_or_path", "name_or_path")}
            file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _data_sets(run: Finished, folder: Path, licence: str) -> dict[str, int]:
    preferences = run.preferences()
    splits = {
        "revisions": {"train": [messages(row) for row in run.demonstrations()[0]]},
        "preferences": {
            "train": [preference(row) for row in preferences.train],
            "test": [preference(row) for row in preferences.test],
        },
    }
    written: dict[str, int] = {}
    for name, parts in splits.items():
        place = folder / "datasets" / name
        counts = {
            f"data/{split}.jsonl": rows_to(place / f"data/{split}.jsonl", rows)
            for split, rows in parts.items()
            if rows
        }
        card = cards.dataset_card(run, name, licence, counts)
        (place / "README.md").write_text(card, encoding="utf-8")
        written |= {f"datasets/{name}/{file}": count for file, count in counts.items()}
    return written


def _upload(run: Finished, models: list[str]) -> str:
    lines = [f"hf upload ORG/{run.name}-{name} models/{name}" for name in models]
    lines += [
        f"hf upload ORG/{run.name}-{name} datasets/{name} --repo-type dataset"
        for name in ("revisions", "preferences")
    ]
    return "\n".join(
        [
            "# Upload\n",
            "Nothing has been uploaded. Choose a licence in each README.md, read the cards, then:",
            "\n```sh",
            *lines,
            "```\n",
        ]
    )
