"""The reports of an evaluation as files beside its predictions: ``report.md`` and ``report.html``."""

from __future__ import annotations

from pathlib import Path

from stapes.errors import DataError
from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.html import page
from stapes.evaluation.markdown import markdown

MARKDOWN, HTML = "report.md", "report.html"


def save_reports(evaluation: Evaluation, folder: str | Path, title: str, html: bool = True) -> None:
    """Write both reports; sound that cannot be read is noted in its place.

    Args:
        evaluation: of a model on a manifest.
        folder: where; made if it is not there.
        title: the heading of both.
        html: whether the page is written, too. An older one is removed if not: it would be of other predictions.

    Raises:
        DataError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKDOWN).write_text(markdown(evaluation, title), encoding="utf-8")
        if html:
            (folder / HTML).write_text(page(evaluation, title), encoding="utf-8")
        else:
            (folder / HTML).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(folder, f"cannot be written ({error.strerror})", "a folder for the results") from error
