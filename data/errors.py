"""The one exception for everything a user can cause and mend."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, told in one clear sentence and its remedy; entry points print it without a traceback."""
