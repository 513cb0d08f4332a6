"""The exceptions that a user can meet, and the one table that gives each its exit code."""

from __future__ import annotations


class BuildgraphError(Exception):
    """A failure with one readable message and, where one helps, a hint that says what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BuildgraphError):
    """The command line asks for something that does not exist or does not fit together."""


class DefinitionError(BuildgraphError):
    """The Dockerfile, or what it points at in the context, is wrong."""


class StepFailed(BuildgraphError):
    """A step of the build ran and failed by itself."""


class EnvironmentProblem(BuildgraphError):
    """This machine lacks something that the build needs: a program, a right, space."""


class RemoteError(BuildgraphError):
    """A registry, web server or cache server refused, failed or could not be reached."""


class CorruptBlob(RemoteError):
    """Bytes do not have the digest that they were asked for by."""


class CorruptLayer(RemoteError):
    """A layer's tar is malformed or tries something that no layer may."""


class StoreProblem(EnvironmentProblem):
    """The local store cannot be opened, read or written."""


EXIT_CODES: tuple[tuple[type[BuildgraphError], int], ...] = (
    (StepFailed, 1),
    (UsageError, 2),
    (DefinitionError, 3),
    (EnvironmentProblem, 4),
    (RemoteError, 5),
)
"""Exception to exit code; the first row whose class fits counts."""


def exit_code(error: BuildgraphError) -> int:
    """The documented exit code of a failure; 1 for one that the table does not know."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)
