"""What recorded tokens and rewards measure, as pure numpy functions: conflicts, diversity, variance.

Used while a step is recorded, by samplers, and by the diagnosis. Imports numpy only. Rollouts lie flat, as in
grpo_core/trace/flat.py: R rollouts in the order of their groups, N tokens in the order of their rollouts.
"""
