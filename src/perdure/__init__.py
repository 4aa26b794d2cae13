"""perdure: continual fine-tuning for language models that keeps what it learned."""

__version__ = "0.1.0"
