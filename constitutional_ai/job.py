"""What a stage is given: settings, constitution, run folder, round, progress, engines."""

from dataclasses import dataclass, field
from pathlib import Path

from constitutional_ai.engines.base import Engine
from constitutional_ai.engines.pool import EnginePool
from constitutional_ai.principles import Constitution
from constitutional_ai.progress import Progress
from constitutional_ai.settings import Settings
from constitutional_ai.store.run_folder import RunFolder, StageFolder

SELF = "self"  # in place of a model's name: the model itself


@dataclass
class Job:
    """One round of a run. ``dataclasses.replace(job, round=2)`` shares the loaded engines."""

    settings: Settings
    constitution: Constitution
    folder: RunFolder
    round: int
    progress: Progress
    engines: EnginePool = field(default_factory=EnginePool)

    def stage(self, name: str, round: int | None = None) -> StageFolder:
        """The folder of a stage, of this round unless another is named."""
        return self.folder.stage(name, self.round if round is None else round)

    def engine(self, model: str | Path) -> Engine:
        """The engine of a model, loaded once."""
        return self.engines.open(model, self.settings)

    def start_model(self) -> str:
        """What this round starts from: the base, later the RL-CAI model of the round before."""
        if self.round == 1:
            return self.settings.model.path
        return str(self.aligned_model(self.round - 1))

    def aligned_model(self, round: int | None = None) -> Path:
        """RL-CAI of this round or another, whichever learner makes it."""
        return self.stage(self.settings.learner, round).path / "model"


def model_name(job: Job, model: str | Path) -> str:
    """A model as rows name it: one of the run by its path in the run folder, wherever that lies."""
    path, folder = Path(model).absolute(), job.folder.path.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(model)
