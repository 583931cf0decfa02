"""One pure function per sign of collapse: History → Signal. Every level at a step depends on that step and earlier ones alone."""
