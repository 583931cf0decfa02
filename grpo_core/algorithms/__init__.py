"""The mathematics: pure tensor functions and their registries. Imports torch and itself only.

Shape letters, used as suffixes everywhere: P prompts · G completions per prompt · B rows (rollouts) · T completion tokens ·
V vocabulary · 1 a kept dimension. `advantages_BT` is (B, T); scalars and lists carry no suffix.
Masks are 1.0 on trained completion tokens and 0.0 elsewhere. Log-probs are in nats.
"""
