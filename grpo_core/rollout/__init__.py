"""The policy and how it writes: loading, generation with sampling log-probs, log-probs for the update."""
