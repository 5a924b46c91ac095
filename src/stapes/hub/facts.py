"""The table of sizes (``sizes.toml``): configurations of well-known models, for those who have not fetched them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from stapes.hub.sources import with_kind

_ABOUT = ("source", "seen", "pack")  # everything else is the configuration


@dataclass(frozen=True)
class Facts:
    """What the table says of a model.

    Attributes:
        config: in the form of transformers' ``config.json``, as far as it decides on sizes.
        source: the address of the file whose numbers these are.
    """

    config: dict[str, Any]
    source: str


def read_facts() -> dict[str, Facts]:
    """The whole table: the source that a recipe names ("hf:owner/name", "pack:name") -> what is known of it."""
    text = (resources.files("stapes.hub") / "sizes.toml").read_text(encoding="utf-8")
    table: dict[str, Facts] = {}
    for name, entry in tomllib.loads(text).items():
        found = Facts({key: value for key, value in entry.items() if key not in _ABOUT}, entry["source"])
        table[f"hf:{name}"] = found
        if "pack" in entry:
            table[f"pack:{entry['pack']}"] = found
    return table


def known_facts(source: str) -> Facts | None:
    """What is known of a source (``hub.resolve``) without having it; of a hub's model, whatever the revision.

    Raises:
        WeightsError: it is no source.
    """
    return read_facts().get(with_kind(source).partition("@")[0])
