"""All checks on a pair, in the order in which data flows, so that the first thing that is wrong is the one to mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from stapes import checkpoint, recipe
from stapes.adapters import ADAPTERS
from stapes.doctor import adapters, encoders, llms, steps
from stapes.doctor.base import SOUND_SECONDS, Finding, Pair, synthesise
from stapes.errors import StapesError
from stapes.types import SAMPLE_RATE_HZ

CHECKS: tuple[Callable[[Pair], Iterator[Finding]], ...] = (
    encoders.sizes,
    encoders.frame_rate,
    encoders.frame_counts,
    encoders.padding,
    encoders.hearing,
    adapters.lengths,
    adapters.padding,
    adapters.last_frame,
    llms.sizes,
    llms.prompt,
    llms.end,
    llms.logits,
    encoders.too_long,
    steps.training,
    steps.training_memory,
    steps.decoding,
)


def describe(encoder: Mapping[str, Any], llm: Mapping[str, Any], adapter: Mapping[str, Any]) -> recipe.Recipe:
    """The recipe of a pair as it is examined: the adapter is trained, with its own losses, on ``steps.UTTERANCES`` utterances.

    Raises:
        RecipeError: an unknown component or option.
    """
    recipe.parse({"encoder": dict(encoder), "adapter": dict(adapter), "llm": dict(llm)})
    own = ADAPTERS[adapter["name"]].losses  # type: ignore[attr-defined]
    return recipe.parse(
        {
            "encoder": dict(encoder),
            "adapter": dict(adapter),
            "llm": dict(llm),
            "data": {"max_seconds": steps.SECONDS},
            "train": {
                "steps": steps.STEPS,
                "batch_seconds": steps.UTTERANCES * steps.SECONDS,
                "trainable": ["adapter"],
                "losses": {"next_token": 1.0, **dict.fromkeys(own, 1.0)},
            },
        }
    )


def admit(described: recipe.Recipe, sound: np.ndarray | None = None) -> Pair:
    """Load a pair for real.

    Args:
        described: as ``describe`` gives it.
        sound: (N,) at 16 kHz to try it on, repeated as long as need be; made here if None.

    Raises:
        StapesError: weights cannot be had, or a chat template cannot be used.
    """
    if sound is None:
        sound = synthesise()
    wanted = round(SOUND_SECONDS * SAMPLE_RATE_HZ)
    return Pair(checkpoint.build(described), described, np.resize(sound, max(wanted, len(sound))))


def examine(pair: Pair) -> Iterator[Finding]:
    """Put a pair through every check; a check that fails to run is a finding too."""
    for check in CHECKS:
        try:
            yield from check(pair)
        except StapesError as error:
            yield Finding(_name(check), "wrong", str(error))
        except Exception as error:  # noqa: BLE001 (what a component of others raises is what is looked for)
            first = next(iter(str(error).splitlines()), "")
            yield Finding(_name(check), "wrong", f"raises {type(error).__name__}: {first}")


def _name(check: Callable[[Pair], Iterator[Finding]]) -> str:
    return f"{check.__module__.rpartition('.')[2]}, {check.__name__.replace('_', ' ')}"
