"""The only room that imports Hugging Face libraries."""
