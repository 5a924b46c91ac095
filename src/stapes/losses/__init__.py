"""Training losses, and the modules that some of them bring along. docs/losses.md has the table of all."""

from collections.abc import Mapping
from typing import Any

from stapes.losses.base import Loss as Loss
from stapes.losses.base import SpeechAndText as SpeechAndText
from stapes.losses.base import SpeechLoss as SpeechLoss
from stapes.registry import Table

# Losses that come as modules; their options are a recipe's section ``losses``, their weights a stage's.
LOSSES = Table(
    "losses",
    {
        "matching": "stapes.losses.matching:Matching",
        "classifier": "stapes.losses.classifier:Classifier",
        "distillation": "stapes.losses.distillation:Distillation",
        "contrastive": "stapes.losses.contrastive:Contrastive",
    },
)

READ_BY_LLM = frozenset({"next_token", "distillation"})  # a stage that weighs none of these does not run the LLM


def build(options: Mapping[str, Mapping[str, Any]], llm_dim: int) -> dict[str, Loss]:
    """The modules of some losses: name -> options, for an LLM of width D."""
    return {name: LOSSES.build({"name": name} | dict(chosen), llm_dim=llm_dim) for name, chosen in options.items()}
