"""Which recipe to take, what a recipe does, and what it costs."""
