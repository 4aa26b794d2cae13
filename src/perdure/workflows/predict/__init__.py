"""Ask the model: single texts, files of them, and conversations."""
