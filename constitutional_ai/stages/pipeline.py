"""The stages in order: what runs, what is already done, and what each one depends on.

A stage's fingerprint names all that its rows depend on, and the fingerprint of the stage before.
A folder that was made under another fingerprint is refused before anything runs, so the stages in a
run folder always belong together.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from constitutional_ai.constitution.writing import keep_copy
from constitutional_ai.data.prompts import prompts_identity
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import RunFolderError, SettingsError
from constitutional_ai.job import Job
from constitutional_ai.principles import Constitution, load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.run_file import REMOVED
from constitutional_ai.settings import Settings
from constitutional_ai.stage_list import ONCE, STAGE_OF, Stage
from constitutional_ai.stages import check
from constitutional_ai.store.failures import FILE as FAILURES
from constitutional_ai.store.run_folder import Fingerprint, RunFolder, fingerprint_hash, stage_word

Step = tuple[str, int]  # (stage, round)

BEFORE = "the stages before"
GONE = ("http.extra", *REMOVED)  # what earlier versions took into more fingerprints, or into any


def stage_module(name: str) -> ModuleType:
    """``stages/NAME.py``. It is imported late, because a stage brings in what it trains with."""
    return import_module(f"constitutional_ai.stages.{name}")


def run_pipeline(
    settings: Settings,
    out: str | Path,
    stages: Sequence[str] | None = None,
    redo: str | None = None,
    progress: Progress | None = None,
    place: check.Place = check.name_alone,
) -> RunFolder:
    """Run every stage that is not done. If ``stages`` are named, run only these.

    A named stage runs in its first round that is not done. ``redo`` ("label", or "r2/label" for a
    round) deletes that stage and all later ones first. ``place`` tells where a setting was written,
    for complaints. Raises Problems if ``check`` finds any, SettingsError for a stage of another
    learner, and RunFolderError if the folder is in use or belongs to other settings, or if an
    earlier stage is missing. Nothing has changed then.
    """
    progress = progress or Progress()
    _refuse_other_learner(settings, [*(stages or ()), *([redo] if redo else ())], place)
    with RunFolder(out, settings.rounds, settings.seed, settings.learner).locked() as folder:
        plan = folder.plan()
        kept = plan if redo is None else plan[: _redo_from(redo, plan)]
        done = [step for step in kept if folder.stage(*step).done]
        todo = _todo(folder, plan, done, stages)
        if todo:
            words = [name for name, _ in todo]
            check.refuse(settings, words, place)
            for remark in check.remarks(settings, words):
                progress.note(remark)
        constitution = load_constitution(settings.constitution)
        prints = fingerprints(settings, constitution, plan)
        _check_kept(folder, kept, prints)
        for step in done:
            folder.stage(*step).verify()
        folder.clear([folder.stage(*step) for step in plan[len(kept) :]])
        keep_copy(folder.path, constitution)
        for step in done:
            folder.stage(*step).tidy()
            progress.note(f"{folder.stage(*step).name}: done before, kept")
        if todo and not ModelSpec.parse(settings.model.path).is_pinned:
            progress.note(
                f"{settings.model.path}: not pinned, it may be another model tomorrow; set"
                " model.revision"
            )
        job = Job(settings, constitution, folder, 1, progress)
        for name, round in todo:
            stage = folder.stage(name, round)
            stage.claim(prints[name, round], GONE)
            counts = stage_module(name).run(replace(job, round=round))
            if unfit := counts.get("unfit"):
                progress.note(
                    f"{stage.name}: {unfit} prompts do not fit the model and have no row; see"
                    f" {FAILURES} there"
                )
            stage.finish(counts)
    return folder


def _refuse_other_learner(settings: Settings, wanted: Sequence[str], place: check.Place) -> None:
    """Raise SettingsError for a stage that no run with this learner has."""
    mine = settings.learner
    for name in wanted:
        other = STAGE_OF[stage_word(name.rpartition("/")[2])]
        if other.learner not in (None, mine):
            raise SettingsError(
                f'{place("learner")}: learner = "{mine}", and a run with it has no stage'
                f' {other.word}; run `cai {mine}`, or set learner = "{other.learner}"'
            )


def _check_kept(folder: RunFolder, kept: Sequence[Step], prints: dict[Step, Fingerprint]) -> None:
    """Refuse stages that were made otherwise. Let each follow the one before as that was made.

    The one before may have been made by an earlier version, which took more into a fingerprint.
    """
    before: Fingerprint | None = None
    for step, print_ in prints.items():
        if before is not None:
            print_[BEFORE] = fingerprint_hash(before)
        before = print_
        if step in kept:
            folder.stage(*step).check(print_, GONE)
            before = folder.stage(*step).made_under() or print_


def _todo(
    folder: RunFolder, plan: Sequence[Step], done: Sequence[Step], stages: Sequence[str] | None
) -> list[Step]:
    """What is to run: all that is not done, or each named stage in its first open round.

    Raises RunFolderError if a stage before one of these is neither done nor to be run.
    """
    still_open = [step for step in plan if step not in done]
    if stages is None:
        return still_open
    firsts = dict(reversed(still_open))
    todo = {(word, firsts[word]) for word in map(stage_word, stages) if word in firsts}
    last = max((still_open.index(step) for step in todo), default=0)
    for name, round in still_open[:last]:
        if (name, round) not in todo:
            raise RunFolderError(
                f"{folder.stage(name, round).path}: missing; run `cai {name}` first, or `cai run`"
            )
    return [step for step in still_open if step in todo]


def _redo_from(redo: str, plan: Sequence[Step]) -> int:
    """The place in the plan of ``"label"`` (in its first round) or ``"r2/label"``."""
    round_part, _, name = redo.rpartition("/")
    word = stage_word(name)
    steps = [step for step in plan if step[0] == word]
    if round_part:
        steps = [step for step in steps if f"r{step[1]}" == round_part and word not in ONCE]
    if not steps:
        raise RunFolderError(f"--redo {redo}: this run has no such round; it has {plan[-1][1]}")
    return plan.index(steps[0])


def fingerprints(
    settings: Settings, constitution: Constitution, plan: Sequence[Step]
) -> dict[Step, Fingerprint]:
    """What each step's rows depend on. Reads the prompt files and the model folders once."""
    sources = {name: prompts_identity(path) for name, path in settings.prompts}
    prints: dict[Step, Fingerprint] = {}
    before: Fingerprint = {}
    for step in plan:
        stage = STAGE_OF[step[0]]
        print_ = _of_stage(stage, settings)
        for name in stage.prompts:
            print_[f"prompts.{name}"] = getattr(settings.prompts, name)
            print_[f"prompts.{name} content"] = sources[name]
        if stage.constitution:
            print_["constitution"] = f"{constitution.name} {constitution.hash}"
        if before:
            print_[BEFORE] = fingerprint_hash(before)
        prints[step] = before = print_
    return prints


def _of_stage(stage: Stage, settings: Settings) -> Fingerprint:
    """The settings that a stage reads, and the models and files that they name."""
    print_: Fingerprint = {"seed": settings.seed}
    print_ |= {f"model.{key}": value for key, value in settings.model.identity().items()}
    print_["model files"] = ModelSpec.parse(settings.model.path).identity()
    table = getattr(settings, stage.word)
    print_ |= {
        f"{stage.word}.{key}": value
        for key, value in table.identity().items()
        if key not in stage.no_rows
    }
    specs = check.models_of(stage, settings)
    for name in stage.models:
        for spec in filter(None, check.named(settings, name)):
            several = f" {spec}" if stage.word == "label" else ""
            name = "label.judge" if several else name
            print_[f"{name} files{several}"] = ModelSpec.parse(spec).identity()
    for name in stage.files:
        print_[f"{name} content"] = _content(check.named(settings, name)[0])
    for name in stage.sources:
        for source in filter(None, check.named(settings, name)):
            print_[f"{name} content"] = prompts_identity(source)
    if any(ModelSpec.parse(spec).kind == "server" for spec in specs):
        print_["http.extra"] = settings.http.extra
    if stage.once:
        print_["rounds"] = settings.rounds
    return print_


def _content(path: str) -> str:
    """A hash of a small file, "" if none is named or it is not there."""
    file = Path(path)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if path and file.is_file() else ""
