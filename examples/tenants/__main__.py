"""Two tenants, their people's keys, refunds that a supervisor approves, and a secret: `python examples/tenants`.

Ends with 1 if anything comes out otherwise than told. `--console` waits for you to decide in the console, as it does
at a terminal unless `--no-console` says otherwise.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import sys
import tempfile
import textwrap
from pathlib import Path

from places import readable
from screen import COLUMNS, Row, Table, heading, say
from search import holds
from shell import Shell
from shop import PEOPLE, SECONDS, Shop, serve
from story import Story

MASK = b"[secret psp_key]"
AUDITED = ("tool", "subject", "tenant", "outcome", "rule", "attempts", "args_bytes", "by_host")


def make_keys(shell: Shell) -> None:
    heading("1. Two tenants: each person has a key, and the server has the keys' hashes")
    for person in PEOPLE.values():
        tenant = f"--tenant {person.tenant} " if person.tenant else ""
        command = f'enclave-broker keys create --subject {person.name} {tenant}--role {person.role} "$KEYS"'
        shell.set_to_output(person.variable, command)


def search(places: dict[str, list[bytes]], secret: str, table: Table) -> None:
    """For the secret, in all that can be read; where it is masked it would have been."""
    say("Now it is looked for, plain and as URL, hex and base64, in all that anybody can read:")
    everywhere: list[str] = []
    for place, texts in places.items():
        found = sorted({name for text in texts for name in holds(text, secret)})
        everywhere += [f"{place} ({name})" for name in found]
        print(f"  {place:20} {len(texts):4} texts {sum(map(len, texts)):9,} bytes   {', '.join(found) or 'nowhere'}")
    masked = sum(text.count(MASK) for texts in places.values() for text in texts)
    say(f"{MASK.decode()} stands in its place {masked} times.")
    table.check("the mask is to be seen", masked > 0, told=True)
    number = sum(map(len, places.values()))
    came_out, why = ("found", ", ".join(everywhere)) if everywhere else ("nowhere", "what its tool says is scrubbed")
    table.add(Row("anybody", f"looks for the secret in {number} texts", came_out, why), "nowhere")


def show_audit(log: str, calls: int, table: Table) -> None:
    heading("10. The server's log has one audit line for each call, without what was in it")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    audited = [line for line in lines if line.get("event") == "tool_call"]
    shown = [line for line in audited if line["outcome"] == "denied"]
    text = " ".join(f"{name}={json.dumps(line[name])}" for line in shown[:1] for name in AUDITED)
    print(f"{len(audited)} lines, such as", *textwrap.wrap(text, COLUMNS - 4), sep="\n    ")
    table.check("audit lines", len(audited), calls)


def tell(folder: Path, table: Table, *, wait: bool) -> None:
    shell = Shell(folder)
    shell.variables["PSP_KEY"] = secret = base64.b64encode(os.urandom(32)).decode()
    shell.set("KEYS", str(folder / "keys.jsonl"), shown="$(mktemp -d)/keys.jsonl")
    make_keys(shell)
    with serve(shell, folder) as shop:
        shell.set("URL", shop.url)
        story = Story(shop, table)
        story.clara_asks()
        story.gus_sees_nothing()
        story.clara_may_not()
        story.sam_approves_by_curl()
        story.sam_denies()
        story.at_a_terminal()
        story.in_the_console(wait=wait)
        story.secrets_stay()
        places = readable(shop, story.asked.values())
        calls = count_calls(shop)
        shop.process.terminate()
        table.check("the server's exit code", shop.process.wait(SECONDS), 0)
        log = shop.log.read_bytes()
    search(places | {"the server's log": [log], "the terminal": [story.at_the_terminal.encode()]}, secret, table)
    show_audit(log.decode(), calls, table)


def count_calls(shop: Shop) -> int:
    return sum(
        shop.get(who, f"/sessions/{session['sessionId']}/calls")["total"]
        for who in PEOPLE
        for session in shop.get(who, "/sessions")["sessions"]
    )


def give_up(*_: object) -> None:
    """As Ctrl-C, so that the server ends, too."""
    sys.exit(143)


def main() -> int:
    parser = argparse.ArgumentParser(description="Two tenants, approvals and a secret, from keys to the audit log.")
    parser.add_argument(
        "--console",
        action=argparse.BooleanOptionalAction,
        default=sys.stdin.isatty() and sys.stdout.isatty(),
        help="wait a minute for somebody to decide in the console (at a terminal; else don't)",
    )
    wait: bool = parser.parse_args().console
    signal.signal(signal.SIGTERM, give_up)
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        tell(Path(folder), table, wait=wait)
    heading("What happened, and why")
    table.show()
    heading("NOT as told" if table.wrong else "As told")
    print("\n".join(table.wrong) or "Each was let do what the policy says, by whom it says, and the secret is nowhere.")
    return bool(table.wrong)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
