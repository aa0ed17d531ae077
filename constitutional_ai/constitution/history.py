"""Which runs used which version of which constitution, and what came of it.

Read from run folders alone: the fingerprint of the revise or label stage names the constitution and
its hash, ``constitution.toml`` in the run folder its version, scores.json the result. A run that is
not finished is listed with the stages that are.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from constitutional_ai.constitution.writing import KEPT
from constitutional_ai.errors import ConstitutionError
from constitutional_ai.principles import load_constitution
from constitutional_ai.store.run_folder import STAGE_NAMES

_DEPTH = 4  # folders below the one that is named

# Key figures, in the order in which they are shown: (prompts, metric, better when lower).
FIGURES = (
    ("harmful", "harm"),
    ("harmful", "good_refusal"),
    ("benign", "helpful"),
    ("borderline", "refused"),
    ("harmful", "win_rate"),
    ("benign", "win_rate"),
)


@dataclass(frozen=True)
class Used:
    """One run. ``figures``: "harmful harm" → (base, result), each a mean with its interval."""

    folder: str
    when: str  # of the last stage that was done, UTC
    constitution: str
    version: str  # "?" where the run folder does not tell
    hash: str
    model: str
    done: tuple[str, ...]
    figures: dict[str, tuple[dict[str, float], dict[str, float]]] = field(default_factory=dict)
    problem: str = ""


def log(folders: Sequence[Path]) -> list[Used]:
    """Every run in or below the folders that names a constitution, the newest first."""
    found = {path.resolve(): path for folder in folders for path in _runs(folder, _DEPTH)}
    used = [one for path in found.values() if (one := _read(path)) is not None]
    return sorted(used, key=lambda one: one.when, reverse=True)


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    if not folder.is_dir():
        return
    if any((folder / part).is_dir() for part in ("1-revise", "r1", "4-label")):
        yield folder
        return
    if depth:
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.is_symlink() and not inner.name.startswith("."):
                yield from _runs(inner, depth - 1)


def _read(run: Path) -> Used | None:
    manifests = sorted(
        (path for part in ("*", "r*/*") for path in run.glob(f"{part}/manifest.json")),
        key=lambda path: path.stat().st_mtime,
    )
    begun = [path for part in ("*", "r*/*") for path in run.glob(f"{part}/settings.json")]
    prints = [_json(path).get("fingerprint", {}) for path in [*manifests, *begun]]
    named = next((p["constitution"] for p in prints if p.get("constitution")), None)
    if named is None:
        return None
    name, _, hash_ = str(named).rpartition(" ")
    figures, problem = _figures(run)
    last = max(path.stat().st_mtime for path in (manifests or begun))
    return Used(
        folder=str(run),
        when=datetime.fromtimestamp(last, UTC).strftime("%Y-%m-%d %H:%M"),
        constitution=name,
        version=_version(run, hash_),
        hash=hash_,
        model=str(next((p["model.path"] for p in prints if "model.path" in p), "?")),
        done=tuple(_stage(run, path) for path in sorted(manifests, key=_place)),
        figures=figures,
        problem=problem,
    )


def _stage(run: Path, manifest: Path) -> str:
    return manifest.parent.relative_to(run).as_posix()


def _place(manifest: Path) -> tuple[int, str]:
    word = manifest.parent.name.partition("-")[2]
    return (STAGE_NAMES.index(word) if word in STAGE_NAMES else 99, str(manifest))


def _version(run: Path, hash_: str) -> str:
    """The version of the run's own copy, if that is what the run was made under."""
    try:
        kept = load_constitution(run / KEPT)
    except ConstitutionError:
        return "?"
    return kept.version if kept.hash == hash_ else "?"


def _figures(run: Path) -> tuple[dict[str, Any], str]:
    """Base and result of each key figure; the result is RL-CAI, or SL-CAI before there is one."""
    path = run / "7-evaluate" / "scores.json"
    if not path.exists():
        return {}, ""
    models = _json(path).get("models", {})
    last = next((models[name] for name in ("rl-cai", "sl-cai") if name in models), None)
    if last is None or "base" not in models:
        return {}, f"{path}: names no base or no result"
    found = {}
    for prompts, metric in FIGURES:
        after = last.get(prompts, {}).get(metric)
        if after is not None:
            before = models["base"].get(prompts, {}).get(metric)
            found[f"{prompts} {metric}"] = (before, after)
    return found, ""


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def table(used: Sequence[Used]) -> str:
    """A paragraph for each run: where, when, under what, how far, with which result."""
    return "\n\n".join("\n".join(_lines(one)) for one in used)


def _lines(one: Used) -> Iterator[str]:
    yield f"{one.when}  {one.constitution} {one.version}  {one.hash}  {one.model}  {one.folder}"
    if not one.figures:
        yield f"  {one.problem or 'not evaluated'}; done: {', '.join(one.done) or 'nothing'}"
    for name, (before, after) in one.figures.items():
        was = f"{before['mean']:.2f} → " if before else ""
        yield f"  {name}: {was}{after['mean']:.2f} ({after['low']:.2f}–{after['high']:.2f})"
