"""Runs studies: plan, do what is not done, read the files, write result files."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from constitutional_ai.errors import UserError
from constitutional_ai.lab.studies import sharing, workers
from constitutional_ai.lab.studies.measures import add_scores
from constitutional_ai.lab.studies.results import RESULTS, Collected, Made, Result, save
from constitutional_ai.lab.studies.study import Base, Bench, Planned, Study
from constitutional_ai.progress import Progress
from constitutional_ai.store.run_folder import fingerprint_hash
from constitutional_ai.version import __version__

FULL, QUICK = "study", "study-quick"  # run files that ship with the package


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for. ``jobs`` 0 works in this process, one step at a time."""

    studies: Sequence[Study]
    base: Base
    seeds: Sequence[int]
    jobs: int
    command: str


class StudyFailed(UserError):
    """Some steps failed; what was made stays."""


def run(wanted: Wanted, progress: Progress) -> list[Result]:
    """Make what is missing, read it, write OUT/results/NAME.json for each study.

    Raises StudyFailed if a step failed; the same command goes on. A study without a failed step is
    written all the same.
    """
    began = time.monotonic()
    planned = sharing.plan_variants(wanted.base, wanted.studies, wanted.seeds)
    todo = sharing.tasks(wanted.base, planned, wanted.studies)
    progress.note(f"{len(planned)} runs; {len(todo)} steps to do")
    lost = workers.run(todo, wanted.jobs, progress) if todo else {}
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
        step, why = next(iter(lost.items()))
        raise StudyFailed(
            f"{len(lost)} steps failed or wait for one that did, first {step}: {why};"
            f" not written: {', '.join(unread) or 'nothing'}; the same command tries again"
        )
    return results


def read(study: Study, wanted: Wanted, planned: sharing.Plan) -> Result:
    """A study's result from its files. Raises DataError if one is missing or broken."""
    own = {
        (variant.name, seed): planned[variant.name, seed]
        for seed in wanted.seeds
        for variant in study.variants(wanted.base, seed)
    }
    return Result(
        study=study.name,
        seeds=list(wanted.seeds),
        file=wanted.base.file,
        overrides=list(wanted.base.overrides),
        model=wanted.base.settings(wanted.seeds[0]).model.path,
        command=wanted.command.replace("NAME", study.name),
        version=__version__,
        cells=collect(study, Bench(wanted.base, wanted.seeds, own)).cells(),
        runs=[_made(name, seed, one) for (name, seed), one in own.items()],
    )


def collect(study: Study, bench: Bench) -> Collected:
    """All that a study reads from its files."""
    cells = Collected()
    study.read(bench, cells)
    for line in study.lines(bench.base, bench.seeds[0]):
        add_scores(cells, bench, line)
    return cells


def _made(name: str, seed: int, one: Planned) -> Made:
    """A run's last stage, and the seconds of all its stages, whichever run made them."""
    last = one.steps[-1]
    seconds = sum(float(one.run.stage(*step).manifest["seconds"]) for step in one.steps)
    hash_ = fingerprint_hash(one.prints[last])
    return Made(name, seed, hash_, one.run.stage(*last).name, round(seconds, 1))


def plan_text(wanted: Wanted) -> str:
    """What would run and what is shared, as ``--dry-run`` shows it."""
    planned = sharing.plan_variants(wanted.base, wanted.studies, wanted.seeds)
    todo = sharing.tasks(wanted.base, planned, wanted.studies)
    seed = wanted.seeds[0]
    users: dict[str, list[str]] = {}
    for study in wanted.studies:
        for name in dict.fromkeys(v.name for v in study.variants(wanted.base, seed)):
            users.setdefault(name, []).append(study.name)
    lines = [f"{'run':<28} {'studies':<40} makes itself"]
    stages, keys = 0, set[str]()
    for (name, of_seed), one in planned.items():
        own = [s for s in one.steps if sharing.key_of(one, s) not in keys]
        stages += len(one.steps)
        keys |= {sharing.key_of(one, step) for step in own}
        if of_seed == seed:
            makes = " ".join(one.run.stage(*step).name for step in own) or "nothing"
            lines.append(f"{name:<28} {', '.join(users[name]):<40} {makes}")
    lines.append(
        f"{len(planned)} runs ({len(wanted.seeds)} seeds): {stages} stages, {stages - len(keys)} of"
        f" them shared; {len(todo)} steps are still to do, {wanted.jobs} at a time"
    )
    return "\n".join(lines)
