"""What a run's recorded figures say about its health: signals, the verdict that ranks causes, and what would help. Numpy only."""
