"""The verbs: init, learn, evaluate, rollback, export."""
