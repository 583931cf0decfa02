"""The machine of Groupscope: trains with GRPO and its relatives and leaves a trace of every token."""
