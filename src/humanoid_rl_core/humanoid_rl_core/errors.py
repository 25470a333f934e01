"""Errors that a user can cause and can repair."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's, told in one line that names the thing and the remedy.

    Programs print the message without a traceback and exit non-zero.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Hint to append to a message about an unknown name.

    Returns ", did you mean 'x'?" for the closest of the known names, "" when none is close.
    """
    match = difflib.get_close_matches(str(name), list(known), n=1)
    return f", did you mean '{match[0]}'?" if match else ""
