"""Training losses, and the modules that some of them bring along."""
