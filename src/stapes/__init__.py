"""Stapes: connect any pretrained speech encoder to any pretrained LLM through a small adapter."""

__version__ = "0.1.0"
