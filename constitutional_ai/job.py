"""What a stage is given: settings, constitution, run folder, round, progress, engines."""

from dataclasses import dataclass, field
from pathlib import Path

from constitutional_ai.engines import open_engine
from constitutional_ai.engines.base import Engine
from constitutional_ai.principles import Constitution
from constitutional_ai.progress import Progress
from constitutional_ai.settings import Settings
from constitutional_ai.store.run_folder import RunFolder, StageFolder

# With large models memory is what counts: the model that speaks and the one that judges, no more.
ENGINES_HELD = 2
SELF = "self"  # in place of a model's name: the model itself


@dataclass
class Job:
    """One round of a run. ``dataclasses.replace(job, round=2)`` shares the loaded engines."""

    settings: Settings
    constitution: Constitution
    folder: RunFolder
    round: int
    progress: Progress
    engines: dict[str, Engine] = field(default_factory=dict)

    def stage(self, name: str, round: int | None = None) -> StageFolder:
        """The folder of a stage, of this round unless another is named."""
        return self.folder.stage(name, self.round if round is None else round)

    def engine(self, model: str | Path) -> Engine:
        """The engine of a model, loaded once; the one unused for longest makes room."""
        path = str(model)
        found = self.engines.pop(path, None)
        if found is None:
            while len(self.engines) >= ENGINES_HELD:
                close = getattr(self.engines.pop(next(iter(self.engines))), "close", None)
                if close is not None:  # vLLM holds a process of its own
                    close()
            found = open_engine(path, self.settings)
        self.engines[path] = found
        return found

    def start_model(self) -> str:
        """What this round starts from: the base, later the RL-CAI model of the round before."""
        if self.round == 1:
            return self.settings.model.path
        return str(self.stage("ppo", self.round - 1).path / "model")


def model_name(job: Job, model: str | Path) -> str:
    """A model as rows name it: one of the run by its path in the run folder, wherever that lies."""
    path, folder = Path(model).absolute(), job.folder.path.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(model)
