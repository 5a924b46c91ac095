"""Evaluation: scores with their intervals and signatures, and whether a model listens at all."""
