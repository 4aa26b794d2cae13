"""Methods that penalise a change of the weights."""
