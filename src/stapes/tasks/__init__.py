"""Tasks: what is asked of the model, what it is trained to answer, and how the answer is read."""

from stapes.registry import Table
from stapes.tasks.base import Task as Task

TASKS = Table("task", {"asr": "stapes.tasks.asr:ASR"})
