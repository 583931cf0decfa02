"""From StepTrace to the store: Arrow tables and the recorder thread."""
