"""What becomes of each call of a governed application, and which rule decided: `python examples/governed`.

Ends with 1 if anything comes out otherwise than promised.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter

from app import broker
from scripts import ASK, SCRIPTS, Script

from enclave_broker import CallRecord, ToolProgressEvent

ROW = "{:12} {:10} {:46} {:8} {}"


def outcome_of(call: CallRecord, starts: int) -> str:
    """In one word, from what was recorded of the call and how often its handler has started."""
    match call.outcome:
        case "done":
            return ("cached", "allowed")[starts] if starts < 2 else "retried"
        case "denied":
            limited = call.error is not None and call.error.code == "RATE_LIMITED"
            return "limited" if limited else "denied"
        case other:
            return other


def why(call: CallRecord, starts: int) -> str:
    """The rule that has decided, without the folder of its file, and what more there is to say."""
    rule = (call.rule or "").replace(sys.path[0] + "/", "")
    if starts > 1:
        return f"{rule}; {starts} starts"
    return f"{rule}\n{ROW.format('', '', '', '', call.error.message)}" if call.error is not None else rule


async def show(script: Script) -> list[str]:
    """Run it and print its calls. Returns what isn't as promised."""
    async with await broker.create_session(principal=script.principal) as session:
        result = await session.execute(ASK + script.code)
        starts = Counter[str]()
        async for event in session.events():
            if isinstance(event, ToolProgressEvent) and event.phase == "processing":
                starts[event.call_id] += 1
        outcomes: list[str] = []
        for call in session.history():
            outcomes.append(outcome_of(call, starts[call.id]))
            shown = f"{call.name} {json.dumps(call.args)}"
            print(
                ROW.format(script.title, session.principal.subject, shown, outcomes[-1], why(call, starts[call.id])),
                flush=True,
            )
    if (outcomes, result.value) == (script.promised, script.value):
        return []
    return [f"{script.title}: {outcomes} and {result.value!r}, promised {script.promised} and {script.value!r}"]


async def main() -> int:
    print(ROW.format("script", "who", "call", "outcome", "decided by"))
    print(ROW.format("-" * 12, "-" * 10, "-" * 46, "-" * 8, "-" * 12))
    async with broker:
        wrong = [fault for script in SCRIPTS for fault in await show(script)]
    print("\n".join(["", "NOT as promised", *wrong] if wrong else ["", "As promised"]))
    return bool(wrong)


if __name__ == "__main__":
    logging.getLogger("enclave_broker").addHandler(logging.NullHandler())  # it would tell of each failed attempt
    sys.exit(asyncio.run(main()))
