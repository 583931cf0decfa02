"""What is asked and how it is judged: tasks, prompt samplers, rewards, scoring."""
