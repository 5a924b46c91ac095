"""From speech embeddings to text: ``generate`` with its constraints, and the path for long audio."""

from stapes.decoding.generate import Hypothesis as Hypothesis
from stapes.decoding.generate import generate as generate
