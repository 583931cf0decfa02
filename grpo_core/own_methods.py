"""Methods of the user's own, from a file outside the package; methods.py runs it, so that whoever knows METHODS knows them too."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

OWN_METHODS = "GROUPSCOPE_METHODS"
"""Environment variable: a Python file of the user's that adds rows to METHODS, and functions to the registries."""


def bring(path: str) -> str:
    """Run that file; returns what went wrong, empty if nothing did. Every process of a run and of the app does so when it starts.

    The variable is set to the full path, as processes beside a run work in another folder.
    """
    os.environ[OWN_METHODS] = str(Path(path).absolute())
    try:
        spec = importlib.util.spec_from_file_location("groupscope_methods", os.environ[OWN_METHODS])
        if spec is None or spec.loader is None:
            return f"{OWN_METHODS}={path} is no Python file; its name should end in .py"
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        return f"{OWN_METHODS}={path} could not be run: {type(error).__name__}: {' '.join(str(error).split())}"
    return ""
