"""Errors that a user can cause, one class for each kind of thing that can be wrong.

Every message is one line: *where: what was found, what was expected; what to do*. The command line prints it without a
traceback and exits with status 2. A mistake of ours is an ``AssertionError`` or whatever Python raises, never one of these.

    StapesError
      RecipeError         a key, value or combination in a recipe or on the command line
      DataError           a manifest or corpus (file and line)
      AudioError          a sound file or array that cannot be used
      ShapeError          tensors whose sizes do not fit together
      CheckpointError     a run folder that does not fit the model
      WeightsError        pretrained weights that cannot be had or are not the expected ones
      TrainingError       a training that cannot go on (a loss that is not a number)
      AnnotationError     an annotator that cannot be asked
      MissingDependency   an optional package or program that is not installed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class StapesError(Exception):
    """Base of all errors that a user can cause.

    Args:
        where: the file, line, key or object that is wrong.
        found: what was found there.
        expected: what was expected instead.
        fix: what the user can do.
    """

    def __init__(self, where: object, found: str, expected: str = "", fix: str = "") -> None:
        self.where, self.found, self.expected, self.fix = str(where), found, expected, fix
        message = f"{where}: {found}"
        if expected:
            message += f", expected {expected}"
        if fix:
            message += f"; {fix}"
        super().__init__(" ".join(message.split()))

    def __reduce__(self) -> tuple[Callable[..., StapesError], tuple[Any, ...]]:
        """So that it can come from another process."""
        return _again, (type(self), self.args, vars(self))


class RecipeError(StapesError):
    """A recipe, option or command-line argument is wrong."""


class DataError(StapesError):
    """A manifest line or a corpus folder is wrong."""


class AudioError(StapesError):
    """A sound cannot be read or holds nothing that can be used."""


class ShapeError(StapesError):
    """Tensors do not fit together."""


class CheckpointError(StapesError):
    """A checkpoint does not fit the model, or is not one."""


class WeightsError(StapesError):
    """Pretrained weights cannot be had, or are not those expected."""


class TrainingError(StapesError):
    """Training cannot go on."""


class AnnotationError(StapesError):
    """An annotator cannot be reached, or answers nothing that can be used."""


class MissingDependency(StapesError):
    """An optional package is needed and not installed.

    Args:
        feature: what needs it.
        extra: the extra of this package that brings it.
        install: the command that installs it, where it is not Python's.
    """

    def __init__(self, feature: str, extra: str = "", *, install: str = "") -> None:
        command = install or f"pip install 'stapes[{extra}]'"
        super().__init__(feature, "an optional package is missing", fix=f"run `{command}`")


def _again(kind: type[StapesError], arguments: tuple[Any, ...], facts: dict[str, Any]) -> StapesError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(facts)
    return error
