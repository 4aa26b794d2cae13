"""What the ledger knows, and what the model does: views, comparisons, reports, traces."""
