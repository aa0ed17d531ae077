"""Evaluations as Inspect's ``.eval`` logs: for ``inspect view`` and for its data frames.

One log a model, with a sample for each answer and a score for each metric. What is missing or
unlabelled is unscored there too, with its reason. Inspect's own writer makes the file, so the
format is that of the installed version.
"""

import json
import re
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

try:
    from inspect_ai import log
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score
except ImportError:
    needs = "`cai export inspect` needs inspect_ai: pip install 'constitutional-ai[inspect]'"
    raise UserError(needs) from None

Marks = dict[str, dict[str, float | str]]  # row id → metric → value, or why there is none


def export(source: Path, out: Path, model: str | None = None) -> dict[str, int]:
    """Write one log to ``out`` if it ends in .eval, otherwise a log for each model into it.

    ``source`` is the folder of a run or of an evaluation. Returns {path: samples}. Raises DataError
    if there is no finished evaluation, or no such model in it.
    """
    evaluation = Evaluation(source)
    models = evaluation.models
    if model is not None and model not in models:
        raise DataError(f"{source}: no model is called {model}; there are: {', '.join(models)}")
    wanted = [model] if model else models
    one = out.suffix == ".eval"
    if one and len(wanted) > 1:
        raise DataError(
            f"{out}: one log holds one model; name one (--model, of {', '.join(models)}), or a"
            " folder as --out"
        )
    written = {}
    for name in wanted:
        path = out if one else out / f"{_file_name(name)}.eval"
        path.parent.mkdir(parents=True, exist_ok=True)
        eval_log = evaluation.log(name)
        log.write_eval_log(eval_log, str(path))
        written[str(path)] = len(eval_log.samples)
    return written


class Evaluation:
    """A finished evaluation, read from its folder or its run's."""

    def __init__(self, source: Path) -> None:
        paths = (source / "7-evaluate", source)
        path = next((path for path in paths if (path / "manifest.json").exists()), source)
        if not (path / SCORES).exists():
            raise DataError(f"{source}: no finished evaluation in it; `cai evaluate` makes one")
        folder = StageFolder(path, "7-evaluate")
        files = [file for file in (GIVEN, TRANSCRIPTS) if (path / file).exists()]
        self.rows = [row for file in files for row in folder.rows(file, Transcript)]
        self.models = list(dict.fromkeys(row.model for row in self.rows))
        self.manifest = folder.manifest
        self.marks = _marks(folder)
        try:
            self.scores = json.loads((path / SCORES).read_bytes())["models"]
        except ValueError as error:
            raise DataError(
                f"{path / SCORES}: broken ({error}); `--redo evaluate` makes it again"
            ) from None

    def log(self, model: str) -> Any:
        """The log of one model."""
        rows = [row for row in self.rows if row.model == model]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        prompts = list(dict.fromkeys(_prompt_id(row) for row in rows))
        fingerprint = self.manifest.get("fingerprint", {})
        key = content_hash(fingerprint, model)
        return log.EvalLog(
            status="success",
            eval=log.EvalSpec(
                eval_id=key,
                run_id=content_hash(fingerprint),
                task_id=key,
                created=now,
                task="constitutional-ai evaluate",
                dataset=log.EvalDataset(
                    name="test prompts", samples=len(prompts), sample_ids=prompts
                ),
                model=f"cai/{model}",
                config=log.EvalConfig(epochs=1 + max((row.sample for row in rows), default=0)),
                packages={"constitutional-ai": self.manifest["versions"]["constitutional-ai"]},
                metadata={"fingerprint": fingerprint},
            ),
            results=log.EvalResults(
                total_samples=len(rows),
                completed_samples=sum(not row.missing for row in rows),
                scores=_results(self.scores.get(model, {}), rows),
            ),
            stats=log.EvalStats(started_at=now, completed_at=now),
            samples=[self._sample(row) for row in rows],
        )

    def _sample(self, row: Transcript) -> Any:
        stop = "stop" if row.finished else "max_tokens"
        output = ModelOutput.from_content(f"cai/{row.model}", row.answer, stop, row.missing or None)
        return log.EvalSample(
            id=_prompt_id(row),
            epoch=row.sample + 1,
            input=row.prompt,
            target="",
            messages=[*row.prompt, output.choices[0].message],
            output=output,
            scores={name: _score(mark) for name, mark in self._marks_of(row).items()},
            metadata={"kind": row.kind, "slice": row.slice, "missing": row.missing},
        )

    def _marks_of(self, row: Transcript) -> dict[str, float | str]:
        """The oracle's metrics, the judge's, and without an oracle the lexicon's refusal."""
        marks: dict[str, float | str] = {**row.metrics}
        for id in (row.id, *(comparison_id(row.id, model) for model in self.models)):
            marks |= self.marks.get(id, {})
        if not row.metrics:
            marks["refused"] = row.missing or float(refuses(row.answer))
        return marks


def _marks(folder: StageFolder) -> Marks:
    """What the judge said, by the id of a transcript or of a comparison."""
    marks: Marks = defaultdict(dict)
    if (folder.path / GRADES).exists():
        for graded in folder.rows(GRADES, Graded):
            marks[graded.id] |= {**graded.scores, **graded.unlabelled}
    if (folder.path / COMPARISONS).exists():
        for pair in folder.rows(COMPARISONS, Compared):
            value = pair.unlabelled if pair.p_better is None else pair.p_better
            marks[pair.id][f"better_than_{pair.against}"] = value
    return marks


def _score(mark: float | str) -> Any:
    if isinstance(mark, str):
        return Score.unscored(reason=mark, explanation=mark)
    return Score(value=mark)


def _results(scores: Mapping[str, Any], rows: Sequence[Transcript]) -> list[Any]:
    """The evaluation's own means and intervals: a scorer for each kind and metric."""
    results = []
    for kind, metrics in scores.items():
        asked = sum(row.kind == kind for row in rows)
        for name, value in metrics.items():
            if not isinstance(value, Mapping) or "mean" not in value:
                continue
            figures = {
                part: log.EvalMetric(name=part, value=value[part])
                for part in ("mean", "low", "high")
            }
            results.append(
                log.EvalScore(
                    name=f"{kind}: {name}",
                    scorer=name,
                    scored_samples=value["n"],
                    unscored_samples=max(0, asked - value["n"]),
                    metrics=figures,
                )
            )
    return results


def _prompt_id(row: Transcript) -> str:
    return row.case or row.id


def _file_name(model: str) -> str:
    """A model's spec as the name of a file."""
    return re.sub(r"[^\w.-]", "-", model).strip("-.") or "model"
