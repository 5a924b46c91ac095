"""An evaluation's folder: its name, and the reports beside the predictions, ``report.md`` and ``report.html``."""

from __future__ import annotations

import os
from pathlib import Path

from stapes.errors import DataError
from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.html import page
from stapes.evaluation.markdown import markdown

MARKDOWN, HTML = "report.md", "report.html"


def folder_name(data: str | Path, task: str, limit: int | None = None) -> str:
    """What the folder of an evaluation is called, so that another corpus, split, task or limit has another.

    Args:
        data: the manifest; its own name is the split, that of the folder it lies in the corpus.
        task: the key of what was asked.
        limit: how many utterances were taken; None for all.

    Returns:
        For "prepared/slue-voxceleb/dev.jsonl" and "asr": "evaluation-slue-voxceleb-dev-asr".
    """
    data = Path(os.path.abspath(data))  # noqa: PTH100 (links stay links: their names are what the user knows)
    parts = ("evaluation", data.parent.name, data.stem, task, f"limit{limit}" if limit is not None else "")
    return "-".join(part for part in parts if part)


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
