"""What `bench store` measures: one module per part, and the steps they all record."""
