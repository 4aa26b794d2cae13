"""The verb `checkup`: tasks, abilities, facts and drift on one screen."""
