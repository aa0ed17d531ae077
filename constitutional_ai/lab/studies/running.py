"""Runs studies: plan, do what is not done, read, write result files and pages."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from constitutional_ai.errors import UserError
from constitutional_ai.lab.studies import shared_stages as steps
from constitutional_ai.lab.studies import workers as tasks
from constitutional_ai.lab.studies.plan import Base, Bench, Planned, Study
from constitutional_ai.lab.studies.results import Collected, Made, Result, save
from constitutional_ai.progress import Progress
from constitutional_ai.store.run_folder import fingerprint_hash
from constitutional_ai.version import __version__

FULL, QUICK = "study", "study-quick"  # run files that ship with the package
RESULTS = "results"


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for. ``jobs`` 0 works in this process, one step at a time."""

    studies: Sequence[Study]
    base: Base
    seeds: Sequence[int]
    jobs: int
    command: str


class StudyFailed(UserError):
    """Some steps failed; what was made stands."""


def run(wanted: Wanted, progress: Progress) -> list[Result]:
    """Make what is missing, read it, write OUT/results/NAME.json for each study.

    Raises StudyFailed where a step failed; the same command goes on. A study none of whose steps
    failed is written all the same.
    """
    began = time.monotonic()
    planned = steps.plan_variants(wanted.base, wanted.studies, wanted.seeds)
    todo = steps.tasks(wanted.base, planned, wanted.studies)
    progress.note(f"{len(planned)} runs; {len(todo)} steps to do")
    lost = tasks.run(todo, wanted.jobs, progress) if todo else {}
    results, unread = [], []
    for study in wanted.studies:
        try:
            result = read(study, wanted, planned)
        except (UserError, OSError) as error:
            if not lost:
                raise
            unread.append(study.name)
            progress.note(f"{study.name}: {error}")
            continue
        save(result, wanted.base.out / RESULTS / f"{study.name}.json")
        results.append(result)
    progress.note(f"{len(results)} studies, {time.monotonic() - began:.0f} s")
    if lost:
        first = next(iter(lost.items()))
        raise StudyFailed(
            f"{len(lost)} steps failed or wait for one that did, first {first[0]}: {first[1]};"
            f" not written: {', '.join(unread) or 'nothing'}; the same command tries again"
        )
    return results


def read(study: Study, wanted: Wanted, planned: dict[tuple[str, int], Planned]) -> Result:
    """A study's result from files that are all there. Raises DataError for one that is not."""
    own = {
        (variant.name, seed): planned[variant.name, seed]
        for seed in wanted.seeds
        for variant in study.variants(wanted.base, seed)
    }
    found = Collected()
    study.read(Bench(wanted.base, wanted.seeds, own), found)
    settings = wanted.base.settings(wanted.seeds[0])
    return Result(
        study=study.name,
        seeds=list(wanted.seeds),
        file=wanted.base.file,
        overrides=list(wanted.base.overrides),
        model=settings.model.path,
        command=wanted.command.replace("NAME", study.name),
        version=__version__,
        cells=found.cells(),
        runs=[made_of(name, seed, one) for (name, seed), one in own.items()],
    )


def made_of(name: str, seed: int, one: Planned) -> Made:
    """A run's last stage, and the seconds of all its stages, by whomever they were made."""
    last = one.steps[-1]
    seconds = sum(float(one.run.stage(*step).manifest["seconds"]) for step in one.steps)
    hash_ = fingerprint_hash(one.prints[last])
    return Made(name, seed, hash_, one.run.stage(*last).name, round(seconds, 1))


def plan_text(wanted: Wanted) -> str:
    """What would run and what is shared, as ``--dry-run`` shows it."""
    planned = steps.plan_variants(wanted.base, wanted.studies, wanted.seeds)
    todo = steps.tasks(wanted.base, planned, wanted.studies)
    every = sum(len(one.steps) for one in planned.values())
    keys = {steps.key_of(one, step) for one in planned.values() for step in one.steps}
    seed = wanted.seeds[0]
    lines = [f"{'run':<28} {'studies':<40} makes itself"]
    seen: set[str] = set()
    for (name, of_seed), one in planned.items():
        if of_seed != seed:
            continue
        users = [s.name for s in wanted.studies if name in _names(s, wanted.base, seed)]
        own = [one.run.stage(*s).name for s in one.steps if steps.key_of(one, s) not in seen]
        seen |= {steps.key_of(one, step) for step in one.steps}
        lines.append(f"{name:<28} {', '.join(users):<40} {' '.join(own) or 'nothing'}")
    lines.append(
        f"{len(planned)} runs ({len(wanted.seeds)} seeds): {every} stages, {every - len(keys)} of"
        f" them shared; {len(todo)} steps are still to do, {wanted.jobs} at a time"
    )
    return "\n".join(lines)


def _names(study: Study, base: Base, seed: int) -> list[str]:
    return [variant.name for variant in study.variants(base, seed)]


def results_in(folder: Path) -> list[Path]:
    """The result files under a study's folder. Raises UserError where there is none."""
    found = sorted((folder / RESULTS).glob("*.json"))
    if not found:
        raise UserError(f"{folder / RESULTS}: no results; run `cai study all --out {folder}`")
    return found
