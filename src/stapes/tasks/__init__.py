"""Tasks: what is asked of the model, what it is trained to answer, and how the answer is read."""

from stapes.registry import Table
from stapes.tasks.base import OVER as OVER
from stapes.tasks.base import Example as Example
from stapes.tasks.base import Result as Result
from stapes.tasks.base import Task as Task
from stapes.tasks.base import find_task as find_task
from stapes.tasks.base import key_of as key_of

TASKS = Table(
    "task",
    {
        "asr": "stapes.tasks.asr:ASR",
        "ner": "stapes.tasks.ner:NER",
        "sentiment": "stapes.tasks.sentiment:Sentiment",
        "translation": "stapes.tasks.translation:Translation",
        "asr+ner": "stapes.tasks.joint:TranscriptAndEntities",
        "asr+sentiment": "stapes.tasks.joint:TranscriptAndSentiment",
    },
)
