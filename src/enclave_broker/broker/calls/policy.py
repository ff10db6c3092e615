"""Who may call what, how often, and when a person is asked: the steps that ask the broker's rules, facts and limits.

Owns the facts that rules are asked with. The rules are access.py's, the windows rate_limit.py's; the order of the steps
is chain.py's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, cast

from enclave_broker.broker.calls.access import AccessController, Decision, Rule
from enclave_broker.broker.calls.asked import Asked, hash_of
from enclave_broker.broker.calls.call import Call, Later
from enclave_broker.broker.calls.rate_limit import LimitDecision, RateLimiter, charge_id_of, refusal
from enclave_broker.broker.tools.tool import Tool
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import AccessDeniedError, ConfigurationError
from enclave_broker.types.principal import Principal

__all__ = ["AsksPeople", "ContextResolver", "Policy", "checked_policy", "facts_about", "facts_of", "may_call"]

ContextResolver = Callable[[Principal], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""Facts about whoever asks, from the host: asked once a call, where there are rules."""

log = logging.getLogger("enclave_broker.access")

FACTS_SECONDS = 5.0
"""How long the host may take to say what is known of whoever asks: no tool's time has begun yet."""

_NO_FACTS: dict[str, Any] = {}


class AsksPeople(Protocol):
    """The broker's approvals."""

    async def ask(self, call: Call, rule: Rule | None, shown: str) -> Asked:
        """Return when somebody has approved the call. Raises ToolError."""
        ...


class Policy:
    """One a broker. Each step returns None when it is done, else what to await, and refuses by raising ToolError."""

    def __init__(
        self,
        access: AccessController | None,
        limiter: RateLimiter | None,
        context: ContextResolver | None,
        approvals: AsksPeople | None = None,
    ) -> None:
        self._access = access
        self._approvals = approvals
        self._limiter = limiter
        self._limits_all = limiter is not None and not limiter.is_empty
        self._context = context
        self._releasing: set[asyncio.Future[bool]] = set()

    def may_know(self, call: Call, name: str, tool: Tool) -> bool:
        """Whether the caller may hear of a tool: `may_call` says so, and its allow-list."""
        return call.caller.allows(name) and may_call(
            self._access, call.facts, call.caller.principal, name, requires_auth=tool.requires_auth
        )

    def by_name(self, call: Call) -> Awaitable[None] | None:
        """Before the arguments are looked at, so that nobody learns a forbidden tool's schema."""
        tool = call.tool
        assert tool is not None
        if tool.requires_auth and call.caller.principal.is_anonymous:
            raise AccessDeniedError(f"tool {call.name!r} wants to know who is asking, and nobody is known here")
        if self._access is not None:
            self._judge(call, self._access.decide_name(call.name, _facts(call)))
        return None

    @property
    def has_rules(self) -> bool:
        return self._access is not None

    def find_facts(self, call: Call) -> Awaitable[None] | None:
        """What the rules are asked with; the resolver is asked once a call."""
        if self._access is None:
            return None
        if self._context is None:
            call.facts = facts_of(call.caller.principal, _NO_FACTS, call.caller.context)
            return None
        found = self._context(call.caller.principal)
        if inspect.isawaitable(found):
            return self._await_facts(call, found)
        call.facts = facts_of(call.caller.principal, found, call.caller.context)
        return None

    async def _await_facts(self, call: Call, found: Awaitable[Mapping[str, Any]]) -> None:
        timer = asyncio.timeout(FACTS_SECONDS)
        try:
            async with timer:
                facts = await found
        except TimeoutError as error:
            if not timer.expired():
                raise
            log.error("tool %s: context= has given no facts within %g s", call.name, FACTS_SECONDS)
            raise AccessDeniedError(f"tool {call.name!r}: the facts about whoever asks can't be had") from error
        call.facts = facts_of(call.caller.principal, facts, call.caller.context)

    def by_arguments(self, call: Call) -> None:
        """With the validated arguments, unless the name was enough."""
        if call.rule is None:
            self.judge_anew(call)

    def judge_anew(self, call: Call) -> None:
        """With arguments that a middleware has changed."""
        if self._access is None:
            return
        tool = call.tool
        assert tool is not None
        self._judge(
            call, self._access.decide(call.name, _facts(call), tool.arguments(call.validated)), " with these arguments"
        )

    def judge_changed(self, call: Call) -> None:
        """With arguments that a middleware has changed: what a person has approved holds for nothing else."""
        if call.approved is not None and call.approved != hash_of(call.args_json):
            raise AccessDeniedError(f"tool {call.name!r}: a middleware has changed the arguments that were approved")
        self.judge_anew(call)
        if call.asking is not None and call.approved is None:
            what = "a middleware has changed the arguments to such as need approval, and it is too late to ask"
            raise AccessDeniedError(f"tool {call.name!r}: {what}")

    async def _ask(self, call: Call) -> None:
        """A person, unless there is no room for the call anyway; then the charge. An hour may have passed meanwhile."""
        tool, limiter, rule = call.tool, self._limiter, call.asking
        assert tool is not None
        if self._approvals is None:
            raise AccessDeniedError(f"tool {call.name!r} needs a person's approval, and there is nobody to ask")
        if limiter is not None and limiter.is_local and (self._limits_all or tool.rate_limit is not None):
            asked = _counted(call, limiter)
            _check_room(call, limiter.peek(asked, tool.name, tool.rate_limit, life=call.caller.life))
        call.step = "approval"
        if rule is None and call.rule is None:
            call.rule = f"route: {tool.name} (requires_approval)"
        shown = call.rule or ""
        asked = await self._approvals.ask(call, rule, shown)
        if self._access is not None:
            call.step, call.asking = "access", None
            self.judge_anew(call)
            if (call.asking is not None or tool.requires_approval) and not asked.holds_for(call.asking):
                what = "the rules have changed meanwhile, and whom they ask now is not who has approved it"
                raise AccessDeniedError(f"tool {call.name!r}: {what}")
            call.rule = shown
        call.step = "quota"
        if (charging := self.charge(call)) is not None:
            await charging

    def charge(self, call: Call) -> Awaitable[None] | None:
        """One test-and-charge, once per call id; a refused call costs nothing. A person is asked before, if need be."""
        tool, limiter = call.tool, self._limiter
        assert tool is not None
        if (call.asking is not None or tool.requires_approval) and call.approved is None:
            return Later(partial(self._ask, call))
        if not (self._limits_all or tool.rate_limit is not None) or limiter is None:
            return None
        if not limiter.is_local:
            return Later(partial(self._await_charge, limiter, call))
        asked = _counted(call, limiter)
        _check_room(call, limiter.charge(asked, tool.name, tool.rate_limit, life=call.caller.life))
        call.give_back = self._release
        return None

    async def _await_charge(self, limiter: RateLimiter, call: Call) -> None:
        tool, asked = call.tool, _counted(call, limiter)
        assert tool is not None
        charges = limiter.plan(asked, tool.name, tool.rate_limit)
        call.give_back = self._release
        _check_room(call, await limiter.counters.take(charges, charge_id_of(asked, call.caller.life)))

    def _release(self, call: Call) -> None:
        """Give back what a call was charged that was never started."""
        limiter = self._limiter
        assert limiter is not None
        if limiter.is_local:
            limiter.release(call.public(), life=call.caller.life)
        else:
            releasing = asyncio.ensure_future(limiter.counters.release(charge_id_of(call.public(), call.caller.life)))
            self._releasing.add(releasing)
            releasing.add_done_callback(self._releasing.discard)

    def _judge(self, call: Call, decision: Decision | None, what: str = "") -> None:
        """Remember which rule has decided; None means that only the arguments can tell."""
        if decision is None:
            return
        call.rule = _shown(decision)
        if decision.verdict == "allow":
            return
        if decision.verdict == "ask":
            assert decision.rule is not None
            call.asking = decision.rule
            return
        reason = f": {decision.rule.reason}" if decision.rule is not None and decision.rule.reason else ""
        raise AccessDeniedError(f"tool {call.name!r} is not allowed{what}{reason}")


def _counted(call: Call, limiter: RateLimiter) -> ToolCall:
    """As cost functions see it: with the arguments that the handler gets."""
    tool, asked = call.tool, call.public()
    assert tool is not None
    return asked.replace(args=tool.arguments(call.validated)) if limiter.asks(call.name, tool.rate_limit) else asked


def may_call(
    access: AccessController | None,
    facts: Mapping[str, Any] | None,
    principal: Principal,
    name: str,
    *,
    requires_auth: bool,
) -> bool:
    """Whether somebody may call a tool, as far as its name tells; whoever may not learns nothing of it.

    With facts of None, which aren't known, nobody may where there are rules.
    """
    if requires_auth and principal.is_anonymous:
        return False
    if access is None or facts is None:
        return access is None
    decision = access.decide_name(name, facts)
    return decision is None or decision.verdict != "deny"


def _check_room(call: Call, decision: LimitDecision) -> None:
    """Raises RateLimitError, after history knows which limit it was."""
    if not decision.allowed:
        assert decision.quota is not None
        call.rule = f"limit: {decision.quota.name}"
        raise refusal(call.name, decision)


def checked_policy(access: object, limiter: object, context: object) -> RateLimiter:
    """The limiter, one without limits if there is none: routes have their own. Raises ConfigurationError."""
    if access is not None and not isinstance(access, AccessController):
        raise ConfigurationError(f"access is an AccessController, not {access!r}")
    if limiter is not None and not isinstance(limiter, RateLimiter):
        raise ConfigurationError(f"rate_limiter is a RateLimiter, not {limiter!r}")
    if context is not None and not callable(context):
        raise ConfigurationError(f"context is a function of a principal that gives facts, not {context!r}")
    return limiter or RateLimiter()


def _facts(call: Call) -> Mapping[str, Any]:
    assert call.facts is not None
    return call.facts


async def facts_about(
    resolver: ContextResolver | None, principal: Principal, context: Mapping[str, Any]
) -> Mapping[str, Any]:
    """`facts_of` with what the host's resolver says. Raises what that raises, TimeoutError, ConfigurationError."""
    if resolver is None:
        return facts_of(principal, _NO_FACTS, context)
    found = resolver(principal)
    if inspect.isawaitable(found):
        async with asyncio.timeout(FACTS_SECONDS):
            found = await found
    return facts_of(principal, found, context)


def facts_of(principal: Principal, found: object, context: Mapping[str, Any]) -> Mapping[str, Any]:
    """What rules are asked with: claims, over them what the resolver has `found`, the session's `context`, who it is.

    Raises ConfigurationError for what is no mapping.
    """
    if found is not _NO_FACTS and not isinstance(found, Mapping):
        raise ConfigurationError(f"context= gives a mapping of facts, not {type(found).__name__}")
    return {
        **principal.claims,
        **cast("Mapping[str, Any]", found),
        **context,
        "subject": principal.subject,
        "tenant": principal.tenant,
        "role": principal.roles,
    }


def _shown(decision: Decision) -> str:
    """The rule for history: its pattern and where it stands, without the folders of the server."""
    rule = "the default policy" if decision.rule is None else decision.rule.pattern
    where = re.split(r"[/\\]", decision.where)[-1]
    return f"access: {rule} ({where})" if where else f"access: {rule}"
