"""A run's life: its folder, process identity, start, stop, resume, status."""
