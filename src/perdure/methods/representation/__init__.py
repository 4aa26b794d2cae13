"""Methods that act on the hidden states of the model."""
