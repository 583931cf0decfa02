"""Every SELECT of the project: one function per question, parameters bound, columns promised."""
