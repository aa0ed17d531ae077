"""Model and dataset cards: README.md with the front matter that the Hugging Face hub reads.

Every figure comes from the run's own files, with its number of answers and its interval. What a run
does not know, such as a licence, is left open in plain sight. No text that a model wrote goes in.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from constitutional_ai.errors import ConstitutionError
from constitutional_ai.exports.finished import Finished
from constitutional_ai.principles import Constitution, load_constitution
from constitutional_ai.store.whole import ExportError
from constitutional_ai.world import is_model, world

LICENCE_OPEN = "**Not chosen yet.** Set `license` in the front matter above before you upload."
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_TABLES = ("model", "revise", "finetune", "sample", "label", "reward", "ppo")


def page(front: Mapping[str, Any], body: str) -> str:
    """A README.md. The front matter is YAML, as the hub reads it."""
    import yaml

    data = {key: value for key, value in front.items() if value not in (None, [], {})}
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n\n{body}"


def licence(name: str) -> dict[str, str]:
    """The front matter's licence: an open one is "other", with a name that says so."""
    return {"license": name} if name else {"license": "other", "license_name": "not-chosen-yet"}


def licence_text(front: Mapping[str, str]) -> str:
    return LICENCE_OPEN if "license_name" in front else f"`{front['license']}`"


def configs(files: Mapping[str, int]) -> list[dict[str, Any]]:
    """Folders as configurations, files as splits: ``load_dataset(OUT, "sft", split="train")``."""
    found: dict[str, list[dict[str, str]]] = {}
    for file in files:
        folder, _, name = file.partition("/")
        split = {"split": name.partition(".")[0], "path": file}
        found.setdefault(folder, []).append(split)
    return [{"config_name": name, "data_files": splits} for name, splits in found.items()]


def without_secrets(text: str) -> str:
    """Names and passwords taken out of addresses.

    >>> without_secrets("http://me:secret@host:8000/v1#m")
    'http://host:8000/v1#m'
    """
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)


def shown_model(name: str) -> str:
    """A model as others may read it: of a path on this machine only the last part.

    >>> shown_model("/home/me/models/base"), shown_model("lab:s"), shown_model("2-finetune/model")
    ('base', 'lab:s', '2-finetune/model')
    """
    return without_secrets(name.rstrip("/").rpartition("/")[2] if name.startswith("/") else name)


def model_source(path: str) -> str:
    """A model's spec as a command takes it: the laboratory's models by their folder."""
    if not is_model(path):
        return path
    return str(world().model_path(path))


def base_model(run: Finished, given: str) -> str | None:
    """The hub id that the front matter may name, or None: the hub refuses anything else."""
    spec = given or run.settings.model.path
    name = spec.partition("@")[0]
    known = _HUB_ID.fullmatch(name) and not Path(name).exists()
    if given and not known:
        raise ExportError(f"--base-model {given}: expected a hub id, such as Qwen/Qwen2.5-0.5B")
    return name if known else None


def named_constitution(run: Finished, file: str) -> Constitution | None:
    """The constitution itself, found by its name or in ``file``, if its hash is the run's.

    Raises ExportError where ``file`` holds another one.
    """
    name, _, wanted = run.constitution.rpartition(" ")
    try:
        found = load_constitution(file or name)
    except ConstitutionError:
        if file:
            raise
        return None
    if found.hash == wanted:
        return found
    if file:
        raise ExportError(
            f"{file}: is not the run's constitution ({found.hash}, the run's is {wanted})"
        )
    return None


def origin(run: Finished) -> str:
    """One paragraph: which tool, which start, which constitution, which judge."""
    name, _, digest = run.constitution.rpartition(" ")
    judge = {"base": "the start model", "sl-cai": "the SL-CAI model"}.get(
        run.settings.label.judge, f"`{shown_model(run.settings.label.judge)}`"
    )
    return (
        f"Made with constitutional-ai {run.versions['constitutional-ai']} from"
        f" `{shown_model(run.settings.model.path)}` under the constitution **{name}** (hash"
        f" `{digest}`), judged by {judge}; no human labelled harmlessness. The method is"
        " Constitutional AI ([Bai et al. 2022](https://arxiv.org/abs/2212.08073))."
    )


def table_of_files(written: Mapping[str, int]) -> str:
    rows = "\n".join(f"| `{file}` | {count:,} |" for file, count in written.items())
    return f"| file | rows |\n|---|---|\n{rows}"


def left_out(run: Finished) -> str:
    """What of the run's rows is not in the sets, and why."""
    _, demonstrations = run.demonstrations()
    lines = [f"- {count:,} SFT rows left out: {why}" for why, count in demonstrations.items()]
    for why, count in run.preferences().unlabelled.items():
        lines.append(f"- {count:,} pairs left out: unlabelled ({why})")
    return "\n".join(lines) or "No row of the run is left out."


def principles(constitution: Constitution | None, run: Finished) -> str:
    name, _, digest = run.constitution.rpartition(" ")
    if constitution is None:
        return (
            f"**{name}**, hash `{digest}`. Its text was not at hand when this card was written:"
            " `cai export hub-folder --constitution FILE` adds it."
        )
    rows = "\n".join(
        f"- **{principle.name}** ({principle.kind}): {_one_line(principle.text)}"
        for principle in constitution.principles
    )
    return f"**{name}**, version {constitution.version}, hash `{digest}`.\n\n{rows}"


def settings_table(run: Finished) -> str:
    """Every setting of the finished stages, as a run file would say it."""
    lines = [f"seed = {run.settings.seed}"]
    for table in _TABLES:
        found = {
            name: value
            for name, value in sorted(run.fingerprint.items())
            if name.startswith(f"{table}.") and " " not in name and value not in (None, "", [])
        }
        lines += [
            f"{name} = {shown_model(value) if isinstance(value, str) else value}"
            for name, value in found.items()
        ]
    return "```\n" + "\n".join(lines) + "\n```"


def scores_table(scores: Mapping[str, Any], model: str) -> str:
    """Metrics of one model beside the base's: mean, 95% interval, number of answers."""
    rows = []
    base = scores["models"].get("base", {})
    for kind, metric, estimate in estimates(scores["models"].get(model, {})):
        before = base.get(kind, {}).get(metric)
        rows.append(f"| {kind} | {metric} | {_told(before)} | {_told(estimate)} |")
    if not rows:
        return "This model was not evaluated."
    head = f"| prompts | metric | base | {model} |\n|---|---|---|---|"
    return head + "\n" + "\n".join(rows)


def estimates(kinds: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(kind, metric, estimate) of everything that is an estimate; other entries are passed over."""
    for kind, metrics in kinds.items():
        for metric, found in metrics.items() if isinstance(metrics, Mapping) else ():
            if _is_estimate(found):
                yield kind, metric, found


def _is_estimate(found: Any) -> bool:
    return isinstance(found, Mapping) and {"mean", "low", "high", "n"} <= set(found)


def _told(estimate: Any) -> str:
    if not _is_estimate(estimate):
        return "–"
    mean, low, high = (f"{estimate[key]:.2f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low}–{high}), n = {estimate['n']}"


def _one_line(text: str) -> str:
    """A principle's text in a list: on one line, its markup as plain text."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))
