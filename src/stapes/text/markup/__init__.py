"""How entities stand in the text that an LLM writes: one file a way of writing; a recipe finds them by the table below."""

from stapes.registry import Table
from stapes.text.markup.base import Marked as Marked
from stapes.text.markup.base import Markup as Markup
from stapes.text.markup.spans import normalise_marked as normalise_marked

MARKUPS = Table(
    "markup",
    {
        "brackets": "stapes.text.markup.brackets:Brackets",
        "slue": "stapes.text.markup.slue:Slue",
        "json": "stapes.text.markup.json_list:JSONList",
    },
)
