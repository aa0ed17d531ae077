"""Everything that a user can cause. The command line prints these as one line and exits 2."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in the user's input; the message names the place and the remedy."""


class SettingsError(UserError):
    """The run file or an override is wrong."""


class ConstitutionError(UserError):
    """The constitution file is wrong."""


class DataError(UserError):
    """A prompts file or a rows file is wrong."""


class ModelError(UserError):
    """A model folder cannot be loaded, or lacks what the job needs."""


class RunFolderError(UserError):
    """The run folder is in use, or belongs to other settings."""


class NoLogprobs(UserError):
    """The engine cannot give the log-probabilities that were asked of it."""


class ServerGone(ConnectionError):
    """A model server stopped answering; what was written stands. Exit code 1."""


class RowsFailed(Exception):
    """Too many rows of a stage failed; what was written stands. Exit code 1."""


class TrainingDiverged(Exception):
    """A loss or gradient stopped being a number; the last good checkpoint is kept. Exit code 1."""


class Problems(SettingsError):
    """Several mistakes in a run's settings, told at once, a line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)
