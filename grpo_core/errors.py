"""Named errors of the machine. Each message is one sentence: the fact, the reason, and a value that works."""

from __future__ import annotations


class GroupscopeError(ValueError):
    """Something a user can mend; the CLI prints the message alone and exits with 2."""


class ConfigError(GroupscopeError):
    """A setting that cannot work."""


class TaskError(GroupscopeError):
    """A task or dataset that cannot be read."""


class ModelError(GroupscopeError):
    """A model that cannot be found or loaded."""


class LaunchError(GroupscopeError):
    """A run that cannot be started, stopped or resumed."""


class TrainingStopped(Exception):
    """Raised inside the loop when the run was asked to stop; not an error."""
