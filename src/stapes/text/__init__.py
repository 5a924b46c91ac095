"""Text: normalisers, and the small pieces of an LLM's vocabulary."""
