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

    `read_named` returns the named tokens as they are now, the same object while they are the same.
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
        self._known: tuple[Sequence[NamedToken], SecurityPolicy] = ((), self._base)
        self.lockout = Lockout(
            clock, after=config.lockout_after, base_s=config.lockout_base_s, max_s=config.lockout_max_s
        )

    @property
    def policy(self) -> SecurityPolicy:
        """The policy with the named tokens of this moment."""
        named, policy = self._known
        current = self._read_named()
        if current is not named:
            policy = self._base.with_named(self._config, current)
            self._known = (current, policy)
        return policy

    def decide(self, facts: RequestFacts) -> Allow | Deny:
        """Return the decision; a wrong token counts against its client, a right one speaks for it."""
        client = client_key(facts.client or "")
        policy = self.policy
        asked = replace(facts, now=self._clock.now().timestamp(), locked_s=self.lockout.remaining(client))
        decision = policy.decide(asked)
        if isinstance(decision, Deny):
            return self._counted(decision, client)
        if facts.authorization is not None and policy.needs_token(facts):
            self.lockout.succeed(client)
        return decision

    def _counted(self, denial: Deny, client: str) -> Deny:
        if denial.code != "unauthorized":
            return denial
        seconds = self.lockout.fail(client)
        return locked_out(seconds) if seconds >= _LEAST_LOCK_S else denial
