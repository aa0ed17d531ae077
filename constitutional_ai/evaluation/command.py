"""``cai evaluate --model``: any models, any prompts, without a run. Its folder resumes as a run's.

The files are those of a run's ``7-evaluate/``. The fingerprint names models, prompts, judge and
settings, so that a folder is never continued under others.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from constitutional_ai.data.answers import AnswersFile, load_answers
from constitutional_ai.data.cases import Case, load_cases
from constitutional_ai.data.overlap import refuse_overlap, run_of
from constitutional_ai.data.prompts import prompts_identity
from constitutional_ai.engines.spec import ModelSpec, named_specs
from constitutional_ai.errors import DataError, RunFolderError, SettingsError
from constitutional_ai.evaluation.measure import (
    FILES,
    SCORES,
    Plan,
    measure,
    show_scores,
    write,
)
from constitutional_ai.evaluation.oracle import oracle
from constitutional_ai.job import Job
from constitutional_ai.judge.open import judging_alone
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.run_file import REMOVED
from constitutional_ai.settings import Settings
from constitutional_ai.store.run_folder import Fingerprint, RunFolder, StageFolder
from constitutional_ai.store.seeds import derive_seed
from constitutional_ai.world import LAB


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for. ``models`` are specs, or NAME=SPEC to call one by a name."""

    models: Sequence[str]
    prompts: str | None
    answers: Sequence[Path] = ()
    judge: str | None = None
    train: Sequence[str] = ()
    oracle: bool = True  # let the laboratory's oracle read answers to its own prompts
    redo: bool = False
    limit: int | None = None  # prompts of each kind, of whatever name


def evaluate(wanted: Wanted, settings: Settings, out: Path, progress: Progress) -> str:
    """Measure the models, or read back what was measured before; the tables as text.

    Raises UserError for bad input.
    """
    models = named_specs(wanted.models)
    wanted = replace(wanted, judge=wanted.judge or settings.evaluate.judge or None)
    settings = adjusted(settings, wanted, models)
    plan = _plan(wanted, settings, models, progress)
    test = wanted.prompts or str(wanted.answers[0])
    refuse_overlap(plan.cases, test, _trained_on(wanted, models))
    constitution = load_constitution(settings.constitution)
    with RunFolder(out, seed=settings.seed).locked() as runs:
        folder = StageFolder(runs.path, "7-evaluate", settings.seed, "add --redo")
        if wanted.redo:
            _clear(folder)
        print_ = fingerprint(wanted, settings, models, constitution.hash)
        folder.claim(print_, REMOVED)
        if folder.done:
            progress.note(f"{out}: done before, kept; --redo measures again")
        else:
            job = Job(settings, constitution, runs, 1, progress)
            content, counts = measure(job, folder, plan, derive_seed(settings.seed, "evaluate"))
            write(folder.path / SCORES, content)
            folder.finish(counts)
        return show_scores(folder.path)


def adjusted(settings: Settings, wanted: Wanted, models: Mapping[str, str]) -> Settings:
    """The settings for these models: the judge, and the layout that a laboratory's judge knows."""
    changes: dict[str, Any] = {}
    if models:
        changes["model"] = settings.model.model_copy(
            update={"path": str(next(iter(models.values())))}
        )
    if wanted.judge:
        changes["label"] = judging_alone(settings.label, wanted.judge)
        changes["evaluate"] = settings.evaluate.model_copy(update={"judge": ""})
    return settings.model_copy(update=changes)


def _plan(
    wanted: Wanted, settings: Settings, models: Mapping[str, str], progress: Progress
) -> Plan:
    if not models and not wanted.answers:
        raise SettingsError("nothing to evaluate: name a --model, or a file of --answers")
    if models and not wanted.prompts:
        raise SettingsError("--model needs --prompts: a file, or lab")
    test = _cases(wanted, settings)
    given: list[AnswersFile] = []
    for path in wanted.answers:
        file = load_answers(path, given[0].cases if test is None and given else test)
        if file.strays:
            progress.note(f"{path}: {file.strays} rows answer no prompt of the test; left out")
        given.append(file)
    names = Counter([*models, *(name for file in given for name in file.answers)])
    if twice := [name for name, count in sorted(names.items()) if count > 1]:
        raise DataError(f"two models are called {', '.join(twice)}; rename one: --model NAME=SPEC")
    cases = given[0].cases if test is None else test
    in_lab = wanted.oracle and (wanted.prompts == LAB or oracle().known(cases))
    return Plan(models, cases, in_lab, judged=bool(wanted.judge), given=given)


def _cases(wanted: Wanted, settings: Settings) -> list[Case] | None:
    """The test prompts, all of a file's unless a limit is named; None where no source is."""
    if wanted.prompts is None:
        return None
    counts: dict[str, int] = {}
    if wanted.prompts == LAB:
        counts = {kind: getattr(settings.evaluate, kind) for kind in oracle().METRICS}
    return load_cases(wanted.prompts, counts, wanted.limit)


def _trained_on(wanted: Wanted, models: Mapping[str, str]) -> list[str]:
    """What --train names, and the runs that the models come from."""
    runs = {run for spec in models.values() if (run := run_of(str(spec))) is not None}
    return [*wanted.train, *sorted(runs)]


def fingerprint(
    wanted: Wanted, settings: Settings, models: Mapping[str, str], constitution: str
) -> Fingerprint:
    """All that the rows depend on; a model folder by its files."""
    print_: Fingerprint = {"seed": settings.seed, "oracle": wanted.oracle}
    print_ |= {
        f"model {name}": f"{spec} {ModelSpec.parse(spec).identity()}"
        for name, spec in models.items()
    }
    if wanted.prompts:
        print_["prompts content"] = prompts_identity(wanted.prompts)
    if settings.evaluate.dialogues:
        print_["dialogues content"] = prompts_identity(settings.evaluate.dialogues)
    print_["limit"] = wanted.limit
    print_ |= {f"answers {path}": prompts_identity(str(path)) for path in wanted.answers}
    print_["judge"] = ""
    if wanted.judge:
        print_["judge"] = f"{wanted.judge} {ModelSpec.parse(wanted.judge).identity()}"
        print_["constitution"] = constitution
        print_ |= {f"label.{key}": value for key, value in settings.label.identity().items()}
    return print_ | {
        f"evaluate.{key}": value
        for key, value in settings.evaluate.identity().items()
        if key != "difference"
    }


def _clear(folder: StageFolder) -> None:
    """Only what an evaluation writes is deleted: --out may be any folder."""
    if not (folder.path / "settings.json").exists():
        if any(folder.path.glob("*.jsonl")):
            raise RunFolderError(f"{folder.path}: holds rows of something else; take another --out")
        return
    for name in (*FILES, "manifest.json", "settings.json"):
        (folder.path / name).unlink(missing_ok=True)
