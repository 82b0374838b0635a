"""The policy at work: named tokens that come and go, and clients that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..clock import Clock
from ..config import GatewayConfig
from .clients import client_key
from .decision import Allow, Deny
from .lockout import Lockout
from .policy import RequestFacts, SecurityPolicy, locked_out
from .tokens import NamedToken

_LEAST_LOCK_S = 1.0
"""A shorter wait is not worth telling: the answer stays 401."""


class Guard:
    """Decides on requests, and remembers what the decisions of a pure policy depend on.

    `policy` is the policy with the named tokens of the last decision. `read_named` returns the named tokens as they are
    now, the same object while they are the same.
    """

    def __init__(
        self,
        config: GatewayConfig,
        clock: Clock,
        read_named: Callable[[], Sequence[NamedToken]] = tuple,
        *,
        bound_host: str | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._read_named = read_named
        self._base = SecurityPolicy.from_config(config, bound_host=bound_host)
        self._named: Sequence[NamedToken] = ()
        self.policy = self._base
        self.lockout = Lockout(
            clock, after=config.lockout_after, base_s=config.lockout_base_s, max_s=config.lockout_max_s
        )

    def decide(self, facts: RequestFacts) -> Allow | Deny:
        """Return the decision; a wrong token counts against its client, a right one speaks for it."""
        self._look_for_tokens()
        client = client_key(facts.client or "")
        if self._named or len(self.lockout):
            now = self._clock.now().timestamp()
            facts = replace(facts, now=now, locked_s=self.lockout.remaining(client))
        decision = self.policy.decide(facts)
        if isinstance(decision, Deny):
            return self._counted(decision, client)
        if len(self.lockout) and facts.authorization is not None and self.policy.needs_token(facts):
            self.lockout.succeed(client)
        return decision

    def _look_for_tokens(self) -> None:
        named = self._read_named()
        if named is not self._named:
            self.policy = self._base.with_named(self._config, named)
            self._named = named

    def _counted(self, denial: Deny, client: str) -> Deny:
        if denial.code != "unauthorized":
            return denial
        seconds = self.lockout.fail(client)
        return locked_out(seconds) if seconds >= _LEAST_LOCK_S else denial
