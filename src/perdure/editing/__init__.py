"""Knowledge editing in plain torch: facts, the values and closed forms that write them, and the set of all edits in force."""
