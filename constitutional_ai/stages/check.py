"""``cai run --check``: what would stop a run after hours, found before its first stage.

One call tells everything that has to be mended: models, extras, files, servers and keys that the
open stages need, and the constitution's lint. The checks are cheap: no model is loaded, nothing is
downloaded, and a server is only connected to.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from constitutional_ai.constitution.lint import lint
from constitutional_ai.data import sources
from constitutional_ai.data.overlap import refuse_overlap_of_run
from constitutional_ai.data.prompts import SET_OF_KIND, prompts_identity
from constitutional_ai.engines import gguf_file
from constitutional_ai.engines.hub import hub_problem, is_here
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import Problems, UserError
from constitutional_ai.job import SELF
from constitutional_ai.machine import device_of, installed
from constitutional_ai.principles import find_constitution, load_constitution
from constitutional_ai.settings import Settings
from constitutional_ai.stage_list import STAGE_OF, STAGES, Stage, words_of
from constitutional_ai.world import LAB

Place = Callable[[str], str]  # ("label.judge") → where it was written, such as "mine.toml:12"
CONNECT = 5.0  # seconds to wait for a server's first sign


def name_alone(setting: str) -> str:
    """The place of a setting that no file gave."""
    return setting


def refuse(settings: Settings, todo: Sequence[str], place: Place = name_alone) -> None:
    """Raise Problems if there are any."""
    if lines := list(problems(settings, todo, place)):
        raise Problems(lines)


def problems(
    settings: Settings, todo: Sequence[str] | None = None, place: Place = name_alone
) -> Iterator[str]:
    """Every problem of the stages that are to run, by default all, with its place and remedy."""
    todo = words_of(settings.learner) if todo is None else todo
    stages = [stage for stage in STAGES if stage.word in todo]
    yield from _constitution(settings, place)
    yield from _prompts(settings, stages, place)
    for setting, spec in _specs(settings, stages):
        if problem := _of_model(spec, settings):
            yield f"{place(setting)}: {setting}: {problem}"
    if any(stage.trains for stage in stages):
        yield from _training(settings, place)
    yield from _device(settings, place)
    for setting in (name for stage in stages for name in stage.files):
        for file in named(settings, setting):
            if file and not Path(file).is_file():
                yield f"{place(setting)}: {setting}: {file}: no such file"
    if "report" in todo and settings.report.beside:
        yield from _attachments(settings, place)


def remarks(settings: Settings, todo: Sequence[str] | None = None) -> Iterator[str]:
    """What stops no run and is seldom meant: test prompts of an unknown kind.

    A kind may be any word, and all but "harmful" ask for help. So a slip of the pen would have a
    harmful request scored as one that deserves an answer.
    """
    todo = words_of(settings.learner) if todo is None else todo
    tested = any("test" in STAGE_OF[word].prompts for word in todo)
    if not tested or settings.prompts.test == LAB:
        return
    reading = sources.read(settings.prompts.test)
    odd = [row for row in reading.prompts if row.kind not in ("", *SET_OF_KIND) and not row.set]
    for kind in dict.fromkeys(row.kind for row in odd):
        places = [reading.table.place(row.number) for row in odd if row.kind == kind]
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield (
            f"{places[0]}{more}: the kind {kind!r} is none of {', '.join(SET_OF_KIND)}; its prompts"
            ' are taken to deserve help, unless they name "set": "red-team"'
        )


def _constitution(settings: Settings, place: Place) -> Iterator[str]:
    try:
        constitution = load_constitution(settings.constitution)
        constitution.worked_revisions(settings.revise.exemplars)
        constitution.worked_comparisons(settings.label.exemplars)
        for finding in lint(find_constitution(settings.constitution)):
            if finding.severity == "error":
                yield finding.text()
    except UserError as error:
        yield f"{place('constitution')}: {error}"


def _prompts(settings: Settings, stages: Sequence[Stage], place: Place) -> Iterator[str]:
    sources = [f"prompts.{name}" for stage in stages for name in stage.prompts]
    sources += [name for stage in stages for name in stage.sources]
    for name in dict.fromkeys(sources):
        for source in filter(None, named(settings, name)):
            try:
                prompts_identity(source)
            except UserError as error:
                yield f"{place(name)}: {error}"
    if any("test" in stage.prompts for stage in stages) and settings.prompts.test != LAB:
        try:
            refuse_overlap_of_run(settings)
        except UserError as error:
            yield f"{place('prompts.test')}: {error}"


def _attachments(settings: Settings, place: Place) -> Iterator[str]:
    from constitutional_ai.report.attachments import sections_of  # brings in what draws

    for folder in settings.report.beside:
        try:
            sections_of(Path(folder))
        except UserError as error:
            yield f"{place('report.beside')}: {error}"


def _specs(settings: Settings, stages: Sequence[Stage]) -> Iterator[tuple[str, str]]:
    """(setting, spec) of every model that these stages open."""
    yield "model.path", settings.model.path
    for setting in (name for stage in stages for name in stage.models):
        for spec in named(settings, setting):
            if spec not in (SELF, "base", "sl-cai", ""):
                yield setting, spec


def _of_model(text: str, settings: Settings) -> str:
    """What is wrong with a model's spec; "" if nothing is."""
    try:
        spec = ModelSpec.parse(text)
        match spec.kind:
            case "server":
                return _of_server(spec, settings)
            case "vllm" if not installed("vllm"):
                return f"{text} needs vLLM: pip install 'constitutional-ai[vllm]'"
            case "vllm":
                return _of_model(spec.name, settings)
            case "hub":
                return _of_hub(spec)
            case "gguf":
                gguf_file.ready(Path(spec.name))  # unpacking it takes too long for a check
            case _:
                spec.checkpoint()
    except UserError as error:
        return str(error)
    return ""


def _of_server(spec: ModelSpec, settings: Settings) -> str:
    from constitutional_ai.engines.http import key_for

    key_for(spec.name, settings.http.keys)
    url = urlsplit(spec.name)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=CONNECT).close()
    except OSError as error:
        return f"no server answers at {host}:{port} ({error.strerror or error}); start it first"
    return ""


def _of_hub(spec: ModelSpec) -> str:
    if is_here(*spec.checkpoint()):
        return ""
    problem = hub_problem()
    return f"{spec.text}: not on this machine, and {problem}" if problem else ""


def _training(settings: Settings, place: Place) -> Iterator[str]:
    model = settings.model
    if model.path.lower().startswith(("http:", "https:", "vllm:")):
        yield (
            f"{place('model.path')}: model.path: this model runs elsewhere and"
            " cannot be trained; name its folder or hub id there, and the server in revise.critic"
            " and label.judge"
        )
    if model.lora_rank and not installed("peft"):
        yield (
            f"{place('model.lora_rank')}: model.lora_rank = {model.lora_rank} needs peft:"
            " pip install 'constitutional-ai[lora]'"
        )


def _device(settings: Settings, place: Place) -> Iterator[str]:
    device = settings.model.device
    if device not in ("auto", "cpu"):  # torch is slow to import, and nobody has to ask it
        try:
            device_of(device)
        except UserError as error:
            yield f"{place('model.device')}: model.device: {error}"


def models_of(stage: Stage, settings: Settings) -> list[str]:
    """The specs of the models that a stage asks: the run's own, and those that it names."""
    specs = (spec for name in stage.models for spec in named(settings, name))
    return [settings.model.path, *filter(None, specs)]


def named(settings: Settings, name: str) -> list[str]:
    """The values of a setting such as ``label.jury``, which may be one text or several."""
    table, key = name.split(".")
    value = getattr(getattr(settings, table), key)
    return [value] if isinstance(value, str) else list(value)
