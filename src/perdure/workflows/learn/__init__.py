"""Learn a task: plan, prepare, train, draft, judge, record; and what memory keeps of it."""
