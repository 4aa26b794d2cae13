"""Methods that read the untrained model: which task a request belongs to, and the label of a row."""
