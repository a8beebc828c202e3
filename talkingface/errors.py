"""Errors that a user can correct. Each class has the exit status of the command line.

A message contains what is wrong, where (file, key, clip), and how to fix it.
"""

from __future__ import annotations


class TalkingFaceError(Exception):
    """Base of all errors that a user can correct; shown as a message without a traceback."""

    exit_code = 2


class ConfigError(TalkingFaceError):
    """A wrong model, dataset, metric, key or value."""


class DataError(TalkingFaceError):
    """An input file or a dataset folder that cannot be used."""


class WeightsError(TalkingFaceError):
    """Weights that are missing, damaged, unsafe or made for another network."""


class EnvironmentProblem(TalkingFaceError):
    """A missing package, system library, device, permission or disk space."""


class ResourceProblem(EnvironmentProblem):
    """Too few open files, too little memory or a drive that fails, whatever is being read."""


class StageError(TalkingFaceError):
    """A stage ran but its result is not usable, e.g. no clip is left after preprocessing."""

    exit_code = 3


class Interrupted(TalkingFaceError):
    """The run was stopped by a signal, after its state had been saved.

    Args:
        message: what was saved and how to continue.
        signum: number of the signal; the exit status is 128 + signum (130 for Ctrl-C).
    """

    def __init__(self, message: str, signum: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + int(signum)
