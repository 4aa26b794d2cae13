"""Knowledge editing: facts, the closed forms that write them, and the set of all edits in force. No model is run here."""
