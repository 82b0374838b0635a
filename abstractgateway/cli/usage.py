"""Command lines that turn out to be wrong only after they were taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Invalid


class WrongUsage(Invalid):
    """An option or an argument is wrong, or two do not go together; the exit code is 2."""


@contextmanager
def checking_options() -> Iterator[None]:
    """Have what is `Invalid` inside be the fault of the command line."""
    try:
        yield
    except Invalid as error:
        raise WrongUsage(error.field, error.why, code=error.code) from error
