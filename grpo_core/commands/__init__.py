"""What the commands of python -m grpo_core share, and those with a module of their own."""
