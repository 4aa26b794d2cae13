"""Methods that settle on an average of the weights of several moments."""
