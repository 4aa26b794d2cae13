"""What is taken where nothing is said."""

DEFAULT_RECIPE = "lora_mlp"
