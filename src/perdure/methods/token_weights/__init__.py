"""Methods that give the label tokens of the new rows other weights in the task loss."""
