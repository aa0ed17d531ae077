"""Evaluations as Inspect's ``.eval`` logs: what ``inspect view`` opens, and its data frames read.

One log a model: a sample for each answer, its prompt and its text, a score for each metric. What is
missing or unlabelled is unscored there too, with its reason. Needs ``inspect_ai``; written by its
own writer, so that the format is that of the version installed.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from constitutional_ai.errors import DataError, UserError
from constitutional_ai.evaluation.answers import GIVEN
from constitutional_ai.evaluation.judged import COMPARISONS, GRADES, comparison_id
from constitutional_ai.evaluation.measure import SCORES, TRANSCRIPTS
from constitutional_ai.evaluation.rows import Compared, Graded, Transcript
from constitutional_ai.records import content_hash
from constitutional_ai.refusal import refuses
from constitutional_ai.store.run_folder import StageFolder

NEEDS = "needs inspect_ai: pip install 'constitutional-ai[inspect]'"


def export(source: Path, out: Path, model: str | None = None) -> dict[str, int]:
    """Write ``out``: a file where it ends in .eval, else a folder with a log for each model.

    ``source`` is a run folder or that of an evaluation. Returns {path: samples}. Raises DataError
    where there is no finished evaluation, or the model is none of its.
    """
    folder = _folder(source)
    scores, manifest = _json(folder.path / SCORES), folder.manifest
    rows = [
        row
        for file in (GIVEN, TRANSCRIPTS)
        if (folder.path / file).exists()
        for row in folder.rows(file, Transcript)
    ]
    models = list(dict.fromkeys(row.model for row in rows))
    if model is not None and model not in models:
        raise DataError(f"{source}: no model is called {model}; there are: {', '.join(models)}")
    wanted = [model] if model else models
    if out.suffix == ".eval" and len(wanted) > 1:
        raise DataError(
            f"{out}: one log holds one model; name one (--model, of {', '.join(models)}), or a"
            " folder as --out"
        )
    marks = _marks(folder)
    written = {}
    for name in wanted:
        own = [row for row in rows if row.model == name]
        path = out if out.suffix == ".eval" else out / f"{_file_name(name)}.eval"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, name, own, marks, models, scores["models"].get(name, {}), manifest)
        written[str(path)] = len(own)
    return written


def _folder(source: Path) -> StageFolder:
    for path in (source / "7-evaluate", source):
        if (path / SCORES).exists() and (path / "manifest.json").exists():
            return StageFolder(path, "7-evaluate")
    raise DataError(f"{source}: no finished evaluation in it; `cai evaluate` makes one")


def _marks(folder: StageFolder) -> dict[str, dict[str, float | str]]:
    """By a transcript's id, and by a comparison's: metric → value, or why there is none."""
    marks: defaultdict[str, dict[str, float | str]] = defaultdict(dict)
    if (folder.path / GRADES).exists():
        for graded in folder.rows(GRADES, Graded):
            marks[graded.id] |= {**graded.scores, **graded.unlabelled}
    if (folder.path / COMPARISONS).exists():
        for found in folder.rows(COMPARISONS, Compared):
            name = f"better_than_{found.against}"
            mark = found.unlabelled if found.p_better is None else found.p_better
            marks[found.id][name] = mark
    return marks


def _write(
    path: Path,
    model: str,
    rows: Sequence[Transcript],
    marks: Mapping[str, Mapping[str, float | str]],
    models: Sequence[str],
    scores: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> None:
    log = _inspect("log")
    made = datetime.now(UTC).isoformat(timespec="seconds")
    samples = [_sample(row, _scores(row, marks, models)) for row in rows]
    ids = list(dict.fromkeys(row.case or row.id for row in rows))
    key = content_hash(manifest.get("fingerprint", {}), model)
    written = log.EvalLog(
        status="success",
        eval=log.EvalSpec(
            eval_id=key,
            run_id=content_hash(manifest.get("fingerprint", {})),
            task_id=key,
            created=made,
            task="constitutional-ai evaluate",
            dataset=log.EvalDataset(name="test prompts", samples=len(ids), sample_ids=ids),
            model=f"cai/{model}",
            config=log.EvalConfig(epochs=1 + max((row.sample for row in rows), default=0)),
            packages={"constitutional-ai": manifest["versions"]["constitutional-ai"]},
            metadata={"fingerprint": manifest.get("fingerprint", {})},
        ),
        results=log.EvalResults(
            total_samples=len(rows),
            completed_samples=sum(not row.missing for row in rows),
            scores=_results(scores, samples),
        ),
        stats=log.EvalStats(started_at=made, completed_at=made),
        samples=samples,
    )
    log.write_eval_log(written, str(path))


def _sample(row: Transcript, scores: Mapping[str, Any]) -> Any:
    log, model = _inspect("log"), _inspect("model")
    as_message = {
        "system": model.ChatMessageSystem,
        "user": model.ChatMessageUser,
        "assistant": model.ChatMessageAssistant,
    }
    prompt = [as_message[turn["role"]](content=turn["content"]) for turn in row.prompt]
    output = model.ModelOutput.from_content(
        f"cai/{row.model}",
        row.answer,
        "stop" if row.finished else "max_tokens",
        row.missing or None,
    )
    return log.EvalSample(
        id=row.case or row.id,
        epoch=row.sample + 1,
        input=prompt,
        target="",
        messages=[*prompt, output.choices[0].message],
        output=output,
        scores=dict(scores),
        metadata={"kind": row.kind, "slice": row.slice, "missing": row.missing},
    )


def _scores(
    row: Transcript, marks: Mapping[str, Mapping[str, float | str]], models: Sequence[str]
) -> dict[str, Any]:
    """The oracle's metrics, the judge's, the lexicon's refusal; a reason makes an unscored one."""
    score = _inspect("scorer").Score
    found: dict[str, float | str] = {**row.metrics}
    found |= marks.get(row.id, {})
    for against in models:
        found |= marks.get(comparison_id(row.id, against), {})
    if not row.metrics:
        found["refused"] = row.missing or float(refuses(row.answer))
    return {
        name: score.unscored(reason=mark, explanation=mark)
        if isinstance(mark, str)
        else score(value=mark)
        for name, mark in found.items()
    }


def _results(scores: Mapping[str, Any], samples: Sequence[Any]) -> list[Any]:
    """The evaluation's own means and intervals, a scorer for each kind and metric."""
    log = _inspect("log")
    results = []
    for kind, metrics in scores.items():
        if kind.endswith("_by_slice"):
            continue
        asked = sum(sample.metadata["kind"] == kind for sample in samples)
        for name, found in metrics.items():
            if not isinstance(found, Mapping) or "mean" not in found:
                continue
            figures = {part: log.EvalMetric(name=part, value=found[part]) for part in _FIGURES}
            results.append(
                log.EvalScore(
                    name=f"{kind}: {name}",
                    scorer=name,
                    scored_samples=found["n"],
                    unscored_samples=max(0, asked - found["n"]),
                    metrics=figures,
                )
            )
    return results


_FIGURES = ("mean", "low", "high")


def _file_name(model: str) -> str:
    """A spec as a file's name."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in model).strip("-.") or "model"


def _inspect(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"inspect_ai.{module}")
    except ImportError:
        raise UserError(f"`cai export inspect` {NEEDS}") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: broken ({error}); `--redo evaluate` makes it again") from None
