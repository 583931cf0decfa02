"""Alerts to wherever people are told of them: one JSON POST, tried once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

TIMEOUT_S = 5.0


def post(url: str, content: Mapping[str, object]) -> str:
    """POST `content` as JSON; returns an empty text, or the sentence that says why it did not arrive (without the URL, which may hold a key)."""
    request = Request(url, json.dumps(content, ensure_ascii=False).encode(), {"Content-Type": "application/json", "User-Agent": "groupscope"}, method="POST")
    try:
        with urlopen(request, timeout=TIMEOUT_S):
            return ""
    except HTTPError as error:
        why = f"it answered {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:  # unreachable, silent, no HTTP, not an address after all
        why = str(getattr(error, "reason", None) or error) or type(error).__name__
    return f"the webhook at {urlsplit(url).hostname} did not take the alert: {why}"
