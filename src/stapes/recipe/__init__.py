"""Recipes: YAML -> strict, frozen settings. Defaults < recipe < ``--set section.key=value``.

Components (``encoder``, ``adapter``, ``llm``, each of ``tasks``) are a ``name`` and keywords of a constructor, checked against
its signature; everything else is a model of ``sections.py``. An unknown key is an error at every depth, with the nearest name.
"""

from stapes.recipe.reading import COMPONENTS as COMPONENTS
from stapes.recipe.reading import find as find
from stapes.recipe.reading import load as load
from stapes.recipe.reading import parse as parse
from stapes.recipe.reading import shipped as shipped
from stapes.recipe.sections import CTC as CTC
from stapes.recipe.sections import Classifier as Classifier
from stapes.recipe.sections import Contrastive as Contrastive
from stapes.recipe.sections import Data as Data
from stapes.recipe.sections import Decoding as Decoding
from stapes.recipe.sections import Distillation as Distillation
from stapes.recipe.sections import EncoderLoRA as EncoderLoRA
from stapes.recipe.sections import HeldOut as HeldOut
from stapes.recipe.sections import LoRA as LoRA
from stapes.recipe.sections import Losses as Losses
from stapes.recipe.sections import LossName as LossName
from stapes.recipe.sections import Masking as Masking
from stapes.recipe.sections import Matching as Matching
from stapes.recipe.sections import Noise as Noise
from stapes.recipe.sections import Part as Part
from stapes.recipe.sections import Recipe as Recipe
from stapes.recipe.sections import Section as Section
from stapes.recipe.sections import Source as Source
from stapes.recipe.sections import Stage as Stage
from stapes.recipe.sections import Train as Train
