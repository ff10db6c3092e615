"""The endpoints of approvals: what waits for a person, and a person's word.

Who may see and decide is calls/asked.py's, and what is not one's to see is as unknown as what never was.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.calls.asked import Asked
from enclave_broker.broker.http.bodies import read_json
from enclave_broker.broker.http.errors import HttpError, json_response
from enclave_broker.broker.http.gate import admitted
from enclave_broker.broker.http.timing import Timers
from enclave_broker.types.errors import OverloadedError
from enclave_broker.types.principal import Principal
from enclave_broker.types.requests import parse_decision

__all__ = ["ApprovalEndpoints"]

MAX_BODY_BYTES = 16_384
MAX_LISTED = 1_000
MAX_LISTED_BYTES = 8 << 20
"""Of the arguments in one list: what is behind shows when some of these are decided. One is always shown."""
_UNKNOWN = "no such approval"


class ApprovalEndpoints:
    """Handlers of the paths below /approvals."""

    def __init__(self, broker: Broker, timers: Timers) -> None:
        self._approvals = broker.approvals
        self._timers = timers

    async def list(self, request: Request) -> Response:
        """Those that the asker may decide, the oldest first; `total` counts those, too, that there was no room for."""
        by = admitted(request).principal
        facts = await self._approvals.facts(by)
        session_id = request.query_params.get("session")
        found = [asked for asked in self._approvals.open(session_id) if asked.may_be_answered_by(by, facts)]
        shown: list[dict[str, Any]] = []
        size = 0
        for asked in found[:MAX_LISTED]:
            size += asked.size_bytes
            if shown and size > MAX_LISTED_BYTES:
                break
            shown.append(_wire(asked))
        return json_response({"approvals": shown, "total": len(found)})

    async def show(self, request: Request) -> Response:
        asked = await self._find(request, admitted(request).principal)
        return json_response(_wire(asked))

    async def decide(self, request: Request) -> Response:
        by = admitted(request).principal
        asked = await self._find(request, by)
        decision = parse_decision(await read_json(request, MAX_BODY_BYTES, self._timers))
        word = "approved" if decision.approve else "denied"
        try:
            async with asyncio.timeout(self._timers.timing.durable):
                await self._approvals.answer([asked.id], word, by, decision.reason, Asked.may_be_answered_by)
        except TimeoutError:
            raise OverloadedError("the store is slow: the decision may have been taken", retry_after=5) from None
        return json_response({"success": True, "approvalId": asked.id})

    async def _find(self, request: Request, by: Principal) -> Asked:
        facts = await self._approvals.facts(by)
        asked = self._approvals.find(request.path_params["id"])
        if asked is None or not asked.may_be_seen_by(by, facts):
            raise HttpError("NOT_FOUND", _UNKNOWN)
        return asked


def _wire(asked: Asked) -> dict[str, Any]:
    approval, answer = asked.approval(), asked.answer
    wire = {
        "approvalId": approval.id,
        "sessionId": approval.session_id,
        "callId": approval.call_id,
        "toolName": approval.tool,
        "args": approval.args,
        "requestedBy": _who(approval.requested_by),
        "rule": approval.rule,
        "createdAt": int(asked.at * 1000),
        "expiresAt": int(asked.expires_at * 1000),
        "state": "pending" if answer is None else answer.word,
    }
    if answer is not None and answer.by is not None:
        wire["decidedBy"] = _who(answer.by)
    if answer is not None and answer.reason:
        wire["reason"] = answer.reason
    return wire


def _who(principal: Principal) -> dict[str, str]:
    tenant = {} if principal.tenant is None else {"tenant": principal.tenant}
    return {"subject": principal.subject, **tenant}
