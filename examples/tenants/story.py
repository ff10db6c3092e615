"""What happens to four large refunds, step by step."""

from __future__ import annotations

import json
from typing import Any

import httpx
from screen import Row, Table, heading, say
from shop import PEOPLE, Shop, until

__all__ = ["Story"]

REFUND = """
try {
  return await tools.refunds.create({ order: ORDER, amount: AMOUNT });
} catch (error) {
  return `${error.code}: ${error.details?.[0]?.reason ?? error.message}`;
}
"""
CHARGE = """
const errors = [];
for (const amount of [50, 500]) {
  try { await tools.payments.charge({ order: 2, amount }) }
  catch ({ code, message, details }) { errors.push([`${code}: ${message}`, ...(details ?? [])]) }
}
return errors;
"""
AT_THE_TERMINAL = (
    "enclave-broker run --app app.py --as olga \\\n"
    "    -e 'return await tools.refunds.create({ order: 1, amount: 300 })'"
)
LARGE = {"s_first": (1, 900), "s_second": (3, 5000), "s_third": (4, 1400)}
"""Clara's sessions: an order and what is to be refunded of it."""
CONSOLE_SECONDS = 60.0


class Story:
    def __init__(self, shop: Shop, table: Table) -> None:
        self.shop = shop
        self.shell = shop.shell
        self.table = table
        self.asked: dict[str, str] = {}
        """The approval that each session waits for."""
        self.at_the_terminal = ""

    def clara_asks(self) -> None:
        heading("2. Clara of acme asks for refunds: a small one is made at once, large ones wait")
        self.shop.begin("clara", "s_small", _refund(2, 40))
        print("s_small", self.shop.end_of("clara", "s_small"), sep=": ")
        self._calls("clara", "s_small", "done")
        for session, (order, amount) in LARGE.items():
            self.shop.begin("clara", session, _refund(order, amount))
        say("She asks for three large ones, and leaves. Each waits for a supervisor of acme, who sees:")
        self.asked = until(self._all_asked)
        self.shell.export(ENCLAVE_BROKER_URL="URL", ENCLAVE_BROKER_API_KEY="SAM")
        self.shell.run("enclave-broker approvals list")
        say("The shop lets each have three scripts that wait. So the fourth doesn't begin, and Gus's does:")
        answer = self.shop.begin("clara", "s_fourth", _refund(2, 40))
        print(f"clara: {_status(answer)}, Retry-After: {answer.headers.get('retry-after')}")
        why = str(answer.json().get("message")).partition(":")[0]
        self.table.add(Row("clara@acme", "a fourth script", str(answer.status_code), why), "429")
        self.shop.begin("gus", "s_gus", "return await tools.orders.list({})")
        print("gus: his orders are", json.dumps(orders := self.shop.end_of("gus", "s_gus")))
        self.table.check("gus's orders", orders, {"1": 35})
        self._calls("gus", "s_gus", "done")

    def gus_sees_nothing(self) -> None:
        heading("3. Gus is a supervisor, too, but of globex: nothing of acme is there for him")
        decision = {"decision": "approve"}
        requests: list[tuple[str, str, Any]] = [
            ("GET", "/approvals/ID", None),
            ("POST", "/approvals/ID", decision),
            ("GET", "/sessions/ID", None),
            ("GET", "/sessions/ID/stream", None),
            ("GET", "/sessions/ID/calls", None),
            ("POST", "/sessions/ID/cancel", {}),
            ("DELETE", "/sessions/ID", None),
        ]
        same = 0
        for method, path, body in requests:
            real, never = ("s_first", "s_nothing") if "sessions" in path else (self.asked["s_first"], "a_nothing")
            clara, unknown = (self.shop.ask("gus", method, path.replace("ID", id), body) for id in (real, never))
            alike = _all_but_its_time(clara) == _all_but_its_time(unknown)
            same += alike
            print(
                f"{method:6} {path:22} of clara's: {_status(clara)}, {len(clara.content)} bytes; "
                f"of one that never was: {'the same' if alike else 'ANOTHER ANSWER'}"
            )
        lists = {path: self.shop.get("gus", path)["total"] for path in ("/approvals", "/sessions")}
        print(f"his lists: {lists['/approvals']} approvals, {lists['/sessions']} session, which is his own")
        self.table.check("gus's lists", lists, {"/approvals": 0, "/sessions": 1})
        metrics = {who: self.shop.ask(who, "GET", "/metrics").status_code for who in ("gus", "sam", "scraper")}
        print(
            "/metrics, which counts what all tenants do:", ", ".join(f"{who} {code}" for who, code in metrics.items())
        )
        self.table.check("/metrics", metrics, {"gus": 404, "sam": 404, "scraper": 200})
        why = "to the byte what is said of ids that never were"
        self.table.add(Row("gus@globex", f"7 requests about clara's, {same} alike", "404", why), "404")
        self.table.check("answers alike", same, len(requests))

    def clara_may_not(self) -> None:
        heading("4. Clara sees that it waits, and can't approve it by herself")
        path = f"/approvals/{self.asked['s_first']}"
        print(f"GET  {path}: {self.shop.get('clara', path)['state']}")
        answer = self.shop.ask("clara", "POST", path, {"decision": "approve"})
        print(f"POST {path}: {_status(answer)}")
        why = "her role is clerk, and policy.yaml names supervisors as approvers"
        self.table.add(Row("clara@acme", "approves her own", str(answer.status_code), why), "403")

    def sam_approves_by_curl(self) -> None:
        heading("5. Sam, a supervisor of acme, approves the first, with curl; a second time is too late")
        self.shell.set("ID", self.asked["s_first"])
        command = (
            'curl -s "$URL/approvals/$ID" -H "Authorization: Bearer $SAM" \\\n'
            "    -H 'content-type: application/json' -d '{\"decision\": \"approve\"}'"
        )
        said = [json.loads(self.shell.run(command)) for _ in range(2)]
        self.table.check(
            "curl", [answer.get("success", answer.get("code")) for answer in said], [True, "APPROVAL_DECIDED"]
        )
        self._over("s_first", "with curl", "done", "900 for order 1")

    def sam_denies(self) -> None:
        heading("6. He denies the second, and says why; the script catches it")
        self.shell.set("ID", self.asked["s_second"])
        self.shell.run("enclave-broker approvals deny \"$ID\" --reason 'there is no receipt'")
        self._over("s_second", "with the command line", "denied", "APPROVAL_DENIED: there is no receipt")

    def at_a_terminal(self) -> None:
        heading("7. Olga runs a script in the shop itself, and is asked at her terminal: she types y")
        shown = self.shell.at_a_terminal(AT_THE_TERMINAL, "approve? [y/n] ", "y")
        self.at_the_terminal = shown
        call = _call("refunds:create", {"order": 1, "amount": 300})
        came_out = "done" if '"300 for order 1"' in shown else "failed"
        why = "refunds:create (policy.yaml:6); approved by her, at the terminal"
        self.table.add(Row("olga", call, came_out, why), "done")

    def in_the_console(self, *, wait: bool) -> None:
        heading("8. The third is for the console, a page that the server has")
        how, path = "in the console", f"/approvals/{self.asked['s_third']}"
        if wait:
            say("Open this page, give it Sam's key, and approve (or deny) what waits:")
            print(f"  {self.shop.url}/console#/approvals\n  {self.shell.variables['SAM']}", flush=True)
            say(f"If nobody does within {CONSOLE_SECONDS:g} seconds, the example goes on by itself.")
            try:
                until(lambda: self.shop.get("sam", path)["state"] != "pending", CONSOLE_SECONDS)
            except TimeoutError:
                say("Nobody has.")
        else:
            say("Nobody is asked to open it here (--console would), so the example decides by itself.")
        if self.shop.ask("sam", "POST", path, {"decision": "approve"}).status_code == 200:
            how = "by the example, as nobody was at the console"
        if self.shop.get("sam", path)["state"] == "approved":
            self._over("s_third", how, "done", "1400 for order 4")
        else:
            self._over("s_third", how, "denied", None)

    def secrets_stay(self) -> None:
        heading("9. A tool fails, and its errors hold its own secret")
        say("payments:charge raises an exception with it in its message, then a ToolError with it in base64:")
        self.shop.begin("clara", "s_charge", CHARGE)
        for error in self.shop.end_of("clara", "s_charge"):
            print(*(part if isinstance(part, str) else json.dumps(part) for part in error), sep="\n    ")
        self._calls("clara", "s_charge", "failed")

    def _all_asked(self) -> dict[str, str] | None:
        found = {each["sessionId"]: each["approvalId"] for each in self.shop.get("sam", "/approvals")["approvals"]}
        return found if found.keys() >= LARGE.keys() else None

    def _over(self, session: str, how: str, told: str, value: str | None) -> None:
        """The script has gone on, and how."""
        result = self.shop.end_of("clara", session)
        print(f"{session}: {result}")
        if value is not None:
            self.table.check(session, result, value)
        answer = self.shop.get("sam", f"/approvals/{self.asked[session]}")
        by = answer["decidedBy"]
        reason = f": {answer['reason']}" if "reason" in answer else ""
        self._calls("clara", session, told, f"; {answer['state']} by {by['subject']}@{by['tenant']}, {how}{reason}")

    def _calls(self, who: str, session: str, told: str, more: str = "") -> None:
        for call in self.shop.get(who, f"/sessions/{session}/calls")["calls"]:
            error = f"; {call['error']['code']}" if "error" in call and not more else ""
            why = call.get("rule", "").removeprefix("access: ") + error + more
            self.table.add(Row(str(PEOPLE[who]), _call(call["toolName"], call["args"]), call["outcome"], why), told)


def _refund(order: int, amount: int) -> str:
    return REFUND.replace("ORDER", str(order)).replace("AMOUNT", str(amount))


def _call(tool: str, args: dict[str, Any]) -> str:
    return f"{tool} {json.dumps(args, separators=(',', ':')) if args else ''}".rstrip()


def _status(response: httpx.Response) -> str:
    return str(response.status_code) + (f" {response.json()['code']}" if response.is_error else "")


def _all_but_its_time(response: httpx.Response) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    headers = [(name.lower(), value) for name, value in response.headers.raw if name.lower() != b"date"]
    return response.status_code, headers, response.content
