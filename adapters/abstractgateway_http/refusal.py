"""A refusal that is raised where a handler would have nothing to return."""

from __future__ import annotations

from abstractgateway.security import Deny, Headers


class Refused(Exception):
    """The request is answered with a refusal."""

    def __init__(self, status: int, code: str, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.deny = Deny(status, code, detail, headers)

    @staticmethod
    def of(deny: Deny) -> Refused:
        """Return the refusal that the policy decided on."""
        return Refused(deny.status, deny.code, deny.detail, deny.headers)
