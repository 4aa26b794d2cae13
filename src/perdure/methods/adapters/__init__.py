"""Which adapter a task trains, and what lies frozen under it."""
