"""The diagnosis of runs in the store: read on demand, and followed live while a run trains."""
