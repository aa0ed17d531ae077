"""What the READMEs and cards of all exports say of a run, in Markdown.

Every figure comes from the run's own files. No text that a model wrote goes in, no path of this
machine, and no password.
"""

import re
from collections.abc import Mapping
from typing import Any

from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.exports.finished import Finished
from constitutional_ai.principles import Constitution

_TABLES = ("model", "revise", "finetune", "sample", "label", "reward", "ppo", "dpo")


def shown_model(name: str) -> str:
    """A model as others may read it: a path's last part, an address without name and password.

    >>> shown_model("/home/me/models/base"), shown_model("lab:s"), shown_model("2-finetune/model")
    ('base', 'lab:s', '2-finetune/model')
    >>> shown_model("http://me:secret@host:8000/v1#m")
    'http://host:8000/v1#m'
    """
    last = name.rstrip("/").rpartition("/")[2] if name.startswith("/") else name
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", last)


def start_model(run: Finished) -> str:
    """The start model as a command takes it: the laboratory's models by their folder."""
    spec = ModelSpec.parse(run.settings.model.path)
    return spec.checkpoint()[0] if spec.kind == "lab" else spec.text


def origin(run: Finished) -> str:
    """One paragraph: which tool, which start model, which constitution, which judge."""
    judge = {"base": "the start model", "sl-cai": "the SL-CAI model"}.get(
        run.settings.label.judge, f"`{shown_model(run.settings.label.judge)}`"
    )
    name, digest = run.constitution
    return (
        f"Made with constitutional-ai {run.versions['constitutional-ai']} from"
        f" `{shown_model(run.settings.model.path)}` under the constitution **{name}** (hash"
        f" `{digest}`), judged by {judge}; no human labelled harmlessness. The method is"
        " Constitutional AI ([Bai et al. 2022](https://arxiv.org/abs/2212.08073))."
    )


def table_of_files(rows: Mapping[str, int]) -> str:
    lines = [f"| `{file}` | {count:,} |" for file, count in rows.items()]
    return "\n".join(["| file | rows |", "|---|---|", *lines])


def left_out(run: Finished) -> str:
    """Which of the run's rows are not in the sets, and why."""
    _, demonstrations = run.demonstrations()
    lines = [f"- {count:,} SFT rows left out: {why}" for why, count in demonstrations.items()]
    for why, count in run.preferences().unlabelled.items():
        lines.append(f"- {count:,} pairs left out: unlabelled ({why})")
    return "\n".join(lines) or "No row of the run is left out."


def principles(run: Finished, constitution: Constitution | None) -> str:
    """The run's constitution by name and hash, and its principles if they are known."""
    name, digest = run.constitution
    if constitution is None:
        return (
            f"**{name}**, hash `{digest}`. Its text was not at hand when this card was written:"
            " `cai export hub-folder --constitution FILE` adds it."
        )
    rows = [
        f"- **{rule.name}** ({rule.kind}): {_plain(rule.text)}" for rule in constitution.principles
    ]
    return f"**{name}**, version {constitution.version}, hash `{digest}`.\n\n" + "\n".join(rows)


def settings(run: Finished) -> str:
    """Every setting of the finished stages, as a run file says it."""
    lines = [f"seed = {run.settings.seed}"]
    for table in _TABLES:
        for name, value in sorted(run.fingerprint.items()):
            if name.startswith(f"{table}.") and " " not in name and value not in (None, "", []):
                shown = shown_model(value) if isinstance(value, str) else value
                lines.append(f"{name} = {shown}")
    return "\n".join(["```", *lines, "```"])


def scores(models: Mapping[str, Any], model: str) -> str:
    """The metrics of one model beside the base's: mean, 95% interval, number of answers."""
    base = models.get("base", {})
    rows = [
        f"| {kind} | {metric} | {_interval(base.get(kind, {}).get(metric))} | {_interval(value)} |"
        for kind, metrics in models.get(model, {}).items()
        for metric, value in metrics.items()
        if is_estimate(value)
    ]
    if not rows:
        return "This model was not evaluated."
    return "\n".join([f"| prompts | metric | base | {model} |", "|---|---|---|---|", *rows])


def is_estimate(value: Any) -> bool:
    """Whether an entry of scores.json is a mean with its interval, as ``stats.Estimate`` has it."""
    return isinstance(value, Mapping) and {"mean", "low", "high", "n"} <= set(value)


def _interval(value: Any) -> str:
    if not is_estimate(value):
        return "–"
    return "{mean:.2f} ({low:.2f}–{high:.2f}), n = {n}".format_map(value)


def _plain(text: str) -> str:
    """Text on one line, in which nothing is markup."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))
