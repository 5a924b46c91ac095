"""Training: one loop, the stages that run through it, and its optimiser."""
