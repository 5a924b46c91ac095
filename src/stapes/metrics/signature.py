"""Signatures: what has to be equal for two numbers to be comparable, in one line (the form is sacrebleu's, Post, WMT 2018).

    metric|key:value|key:value|...

What made a number (the model, how it decoded) is not in it: that is what a comparison is about.
"""

from __future__ import annotations

from dataclasses import replace

from stapes.types import Score


def facts(signature: str) -> dict[str, str]:
    """The values of a signature by their keys; the metric's name has none."""
    return dict(part.split(":", 1) for part in signature.split("|") if ":" in part)


def with_facts(score: Score, **more: str) -> Score:
    """The same score with more in its signature; what is empty, or there already, is left out."""
    said = facts(score.signature)
    added = [f"{key}:{value}" for key, value in more.items() if value and key not in said]
    return replace(score, signature="|".join([score.signature, *added]))
