"""Write the model as an adapter or as merged weights, with a model card."""
