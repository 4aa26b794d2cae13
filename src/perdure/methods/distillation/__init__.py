"""Methods that hold the model to what a teacher, or the model before the task, gave."""
