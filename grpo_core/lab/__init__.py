"""The laboratory: what any method would do with a recorded batch, token by token."""
