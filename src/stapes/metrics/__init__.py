"""Metrics: (references, hypotheses) -> a score with its parts, interval and signature."""
