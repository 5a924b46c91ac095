"""Writes the pages of this folder that follow from code and papers.toml: adapters.md, papers.md, recipes.md (`make docs`)."""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
import typing
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from stapes.adapters import ADAPTERS, DERIVED, Adapter
from stapes.recipe import sections
from stapes.types import SAMPLE_RATE_HZ

ROOT = Path(__file__).resolve().parents[1]
ARXIV = re.compile(r"(?:arXiv )?\b(\d\d(?:0[1-9]|1[0-2])\.\d{5})\b")
# The pair that sizes are given for; which token is the blank does not change them.
PAIR = "Whisper base and SmolLM2-135M"
SECONDS_PER_FRAME = 320 / SAMPLE_RATE_HZ
SIZES = {"encoder_dim": 512, "llm_dim": 576, "seconds_per_frame": SECONDS_PER_FRAME, "vocab_size": 49_152, "blank_id": 0}
LONG_SECONDS = 600


def markdown(text: str) -> str:
    """A docstring's text as Markdown: code in single backticks, papers as links, equations (which are indented) as they are."""
    lines = []
    for line in text.splitlines():
        if line.startswith("    "):
            lines.append(line.replace("``", ""))
        else:
            parts = re.split(r"``([^`]+)``", line)
            parts[::2] = [ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", part.replace("*", r"\*")) for part in parts[::2]]
            parts[1::2] = [f"`{part}`" for part in parts[1::2]]
            lines.append(re.sub(r"\b(see|as in) `(\w+)`", _link, "".join(parts)))
    return "\n".join(lines)


def _link(found: re.Match[str]) -> str:
    return f"{found[1]} [`{found[2]}`](#{found[2]})" if found[2] in ADAPTERS.members else found[0]


def sentence(text: str) -> str:
    """The same with a capital in front."""
    return text[:1].upper() + text[1:]


def table(*rows: tuple[str, ...]) -> str:
    """Rows as a Markdown table, the first of them its head."""
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


# -- adapters.md -------------------------------------------------------------------------------------------------------


def card(name: str) -> tuple[str, str, str]:
    """What an adapter does, in a line; its source; and the rest of its card: from its module's docstring."""
    first, _, rest = (inspect.getdoc(sys.modules[ADAPTERS[name].__module__]) or "").partition("\n\n")
    what, _, source = first.removeprefix(f"``{name}``: ").partition(". ")
    return what, source, rest


def build(name: str, **options: Any) -> Adapter:
    """The adapter for ``PAIR``, without memory for its weights."""
    with torch.device("meta"):
        derived = SIZES | {"llm_table": torch.empty(SIZES["vocab_size"], SIZES["llm_dim"])}
        found: Adapter = ADAPTERS.build({"name": name} | options, **derived)
    return found


def parameters(name: str) -> int:
    """How many numbers it trains between the encoder and the LLM of ``PAIR``, with its defaults."""
    return sum(parameter.numel() for parameter in build(name).parameters())


def rate(name: str) -> str:
    """Embeddings for each second, with its defaults."""
    adapter = build(name)
    counts = adapter.output_lengths(torch.arange(1, round(LONG_SECONDS / SECONDS_PER_FRAME) + 1))
    more = (counts > counts[0]).nonzero()
    if not len(more):
        return f"{counts[0]} for an utterance"
    step = float(more[0]) * SECONDS_PER_FRAME
    if step >= 1:
        return f"{counts[0]} for each {step:g} s"
    return ("at most " if adapter.lengths_are_bounds else "") + f"{float(counts[-1]) / LONG_SECONDS:.3g}"


def lengths(name: str) -> str:
    """Whether the number of embeddings follows from that of frames, and which switch changes that."""
    words = {False: "exact", True: "by content"}
    bounds = build(name).lengths_are_bounds
    switches = {
        key: option.default for key, option in ADAPTERS.options(name, DERIVED).items() if isinstance(option.default, bool)
    }
    changed = [
        f"; with `{key}: {shown(not default)}` {words[not bounds]}"
        for key, default in switches.items()
        if build(name, **{key: not default}).lengths_are_bounds != bounds
    ]
    return words[bounds] + "".join(changed)


def arguments(kind: type) -> dict[str, str]:
    """Argument -> what the Args or Attributes of the class, or of those that it inherits from, say of it."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if issubclass(part, Adapter | sections.Section):
            block = re.split("\n(?:Args|Attributes):\n", inspect.cleandoc(part.__doc__ or ""))[-1].partition("\n\n")[0]
            for names, meaning in re.findall(r"^    (\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", block, flags=re.MULTILINE):
                found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found


def shown(value: Any) -> str:
    """A default as one would write it in a recipe."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def section(name: str) -> str:
    """All that the page says of one adapter."""
    kind, (what, source, rest) = ADAPTERS[name], card(name)
    path = Path(inspect.getfile(kind)).relative_to(ROOT).as_posix()
    meanings, options = arguments(kind), ADAPTERS.options(name, DERIVED)
    rows = [(f"`{key}`", f"`{shown(option.default)}`", markdown(meanings.get(key, ""))) for key, option in options.items()]
    derived = [f"`{key}`" for key in inspect.signature(kind).parameters if key in DERIVED]
    parts = [
        f"## {name}",
        f"{sentence(markdown(what))}. {markdown(source)}",
        markdown(rest),
        table(("option", "default", "what it is"), *rows),
        f"Derived from the encoder and the LLM: {', '.join(derived)}."
        + (f" Own losses: {', '.join(f'`{loss}`' for loss in kind.losses)}." if kind.losses else "")
        + f" Code: [{path}](../{path}).",
    ]
    return "\n\n".join(parts)


ADAPTERS_HEAD = f"""# Adapters

An adapter turns the frames of a speech encoder into embeddings that an LLM reads. A recipe names one and sets what it likes of
its options, `adapter: {{name: stack_mlp, stride: 5}}`; widths and rates follow from the encoder and the LLM. Sizes are those
between {PAIR} (E = 512, D = 576), rates those behind an encoder of 50 frames a second, both with
the defaults. Where lengths are by content, the number of embeddings depends on what is heard; `stapes check`, which counts
for other pairs, then expects 4 a second of speech, as many as there are tokens (ours). Own losses come with the adapter; a
stage weighs them under `losses`.

This page is made from the docstrings of `src/stapes/adapters` by `make docs`. Letters of shapes are those of
[types.py](../src/stapes/types.py); `attention` and `layers` are blocks that several adapters share
([attention.py](../src/stapes/adapters/attention.py), [layers.py](../src/stapes/adapters/layers.py)). What the papers have
besides adapters is in [papers.md](papers.md); how to add one in [add-an-adapter.md](add-an-adapter.md).
"""


def adapters_page() -> str:
    """docs/adapters.md."""
    rows = [
        (
            f"[{name}](#{name})",
            markdown(card(name)[0]),
            markdown(card(name)[1].rstrip(".")),
            rate(name),
            f"{parameters(name):,}",
            lengths(name),
            ", ".join(f"`{loss}`" for loss in ADAPTERS[name].losses),
        )
        for name in ADAPTERS
    ]
    head = ("name", "what", "source", "embeddings a second", "parameters", "lengths", "own losses")
    return "\n\n".join([ADAPTERS_HEAD.rstrip(), table(head, *rows), *map(section, ADAPTERS)]) + "\n"


# -- papers.md ---------------------------------------------------------------------------------------------------------


PAPERS_HEAD = """# Papers

What each paper has, where it is here, which recipe or option uses it, and what differs or is not known. Options are parts of
a recipe. *Not built* is said where something is not there. *Ours* is what no source gives. Where the text of a paper was not
to be had, its abstract, its authors' code or notes of readers are named as the source.

This page is made from [papers.toml](papers.toml) by `make docs`; a new mechanism is a few lines there. The adapters'
equations and options are in [adapters.md](adapters.md).
"""


def place(name: str) -> str:
    """Where a recipe's name leads to: its file, or the folder of those that a pattern (``papers/connect_*``) stands for."""
    return name.rpartition("/")[0] if "*" in name else f"{name}.yaml"


def mechanism(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    """A row of a paper's table."""
    files = [f"[{path.removeprefix('src/stapes/')}](../{path})" for path in entry.get("files", [])]
    recipes = [f"[recipes/{name}.yaml](../recipes/{place(name)})" for name in entry.get("recipes", [])]
    uses = [f"`{option}`" for option in entry.get("options", [])] + recipes
    note = ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", entry.get("note", ""))
    what = ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", entry["what"])
    return what, ", ".join(files) or "*not built*", ", ".join(uses), note


def papers() -> list[dict[str, Any]]:
    """What docs/papers.toml holds: a table a paper."""
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "docs/papers.toml").read_text(encoding="utf-8"))["paper"]
    return found


def papers_page() -> str:
    """docs/papers.md."""
    parts = [PAPERS_HEAD.rstrip()]
    for paper in papers():
        source = f" [arXiv {paper['id']}](https://arxiv.org/abs/{paper['id']})." if "id" in paper else ""
        head = ("mechanism", "where", "option or recipe", "what differs, what is not known")
        parts += [f"## {paper['name']}", paper["about"].strip() + source, table(head, *map(mechanism, paper["mechanism"]))]
    return "\n\n".join(parts) + "\n"


# -- recipes.md --------------------------------------------------------------------------------------------------------


RECIPES_HEAD = """# Recipes

A recipe is a YAML file that says what a model is made of and how it is trained. An unknown key is answered with the nearest
that is known. `stapes check my.yaml` shows what a recipe comes to, `--set train.steps=300` sets a key on the command line, and
`extends: papers/sense_asr_lora` begins with another recipe: what is said here goes before it, key by key.

Components and tasks are named, and have options of their own: [encoders.md](encoders.md), [adapters.md](adapters.md),
[llms.md](llms.md), [tasks.md](tasks.md).

This page is made from the docstrings of [recipe/sections.py](../src/stapes/recipe/sections.py) by `make docs`.
"""
# Where a section stands in a recipe -> what describes it.
RECIPE_SECTIONS: dict[str, type[BaseModel]] = {
    "the recipe itself": sections.Recipe,
    "`data`": sections.Data,
    "`data.train` and the `mixture` of a stage, each entry": sections.Source,
    "`data.dev`, each entry": sections.HeldOut,
    "`data.masking`": sections.Masking,
    "`data.noise`": sections.Noise,
    "`train`": sections.Train,
    "`stages`, each entry: all of `train`, and": sections.Stage,
    "`ctc`": sections.CTC,
    "`lora`": sections.LoRA,
    "`encoder_lora`": sections.EncoderLoRA,
    "`losses.matching`": sections.Matching,
    "`losses.classifier`": sections.Classifier,
    "`losses.distillation`": sections.Distillation,
    "`losses.contrastive`": sections.Contrastive,
    "`decoding`": sections.Decoding,
}


def keys(kind: type[BaseModel]) -> dict[str, str]:
    """Key -> default of what a section has and its parent has not, as one would write it."""
    own = kind.model_fields.keys() - (kind.__mro__[1].model_fields.keys() if kind is sections.Stage else set())
    return {key: default(field.default) for key, field in kind.model_fields.items() if key in own}


def default(value: Any) -> str:
    """A default as one would write it; of a whole section, that it is one."""
    if value is PydanticUndefined:
        return "(needed)"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, list | tuple | dict):
        text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=200)
        return f"`{text.strip()}`"
    return f"`{shown(value)}`" if value != "" else ""


def choices(kind: type[BaseModel], key: str) -> str:
    """The values that a key may have, where they are a few names."""
    annotation = kind.model_fields[key].annotation
    names = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()
    return f" One of {', '.join(f'`{name}`' for name in names)}." if names else ""


def recipes_page() -> str:
    """docs/recipes.md."""
    parts = [RECIPES_HEAD.rstrip()]
    for title, kind in RECIPE_SECTIONS.items():
        meanings = arguments(kind)
        rows = [(f"`{key}`", value, markdown(meanings[key]) + choices(kind, key)) for key, value in keys(kind).items()]
        about = markdown(re.split("\n+(?:Attributes):\n", inspect.cleandoc(kind.__doc__ or ""))[0])
        parts += [f"## {sentence(title)}", about, table(("key", "default", "what it is"), *rows)]
    return "\n\n".join(parts) + "\n"


PAGES = {"adapters.md": adapters_page, "papers.md": papers_page, "recipes.md": recipes_page}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (ROOT / "docs" / file).write_text(page(), encoding="utf-8")
        print(f"docs/{file}")
