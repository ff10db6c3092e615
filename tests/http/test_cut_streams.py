"""Readers that are cut off at random bytes and come back: together their pieces are the log, no more and no less."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import httpx
import pytest

from tests.http.cut import CutReader, Form, answer_of, exchange
from tests.http.live import request_bytes
from tests.http.served import served

SESSIONS = 1_000
AT_ONCE = 50
SCRIPT = """
for (let i = 0; i < ROUNDS; i++) {
  console.log("round " + i + " → " + "é".repeat(i * WIDTH));
  await tools.orders.get({ id: i });
  if (i % 2) { await sleep(PAUSE); } else { console.warn("warned", i); }
}
await Promise.all([1, 2].map((id) => tools.orders.get({ id })));
return "done: SESSION";
"""
OTHERS: list[Form] = ["fromSeq", "from", "sse"]


async def follow_with_three(port: int, number: int, limit: asyncio.Semaphore) -> list[CutReader]:
    """One session and its readers, when they have all of it."""
    chance = random.Random(f"session {number}")
    id = f"s_{number}"
    code = SCRIPT.replace("SESSION", id).replace("ROUNDS", str(chance.randint(1, 5)))
    code = code.replace("WIDTH", str(chance.choice([1, 10, 100]))).replace("PAUSE", str(chance.randint(1, 20)))
    poster = CutReader(port, id, "post", chance, json.dumps({"code": code, "sessionId": id}).encode())
    others = [CutReader(port, id, form, chance) for form in chance.sample(OTHERS, 2)]
    async with limit:
        while not poster.lines:
            await poster.read_once()
        await asyncio.gather(*[reader.read() for reader in (poster, *others)])
        raw = await exchange(port, request_bytes("GET", f"/sessions/{id}/stream", b"", "Connection: close"))
    answer = answer_of(raw)
    assert answer is not None
    assert answer.whole
    log = dict(enumerate(answer.body.splitlines(keepends=True), 1))
    events = [json.loads(line) for line in log.values()]
    assert [event["seq"] for event in events] == list(log)
    assert [event["type"] for event in events].index("final") == len(events) - 1
    assert events[-1]["payload"]["result"] == f"done: {id}"
    for reader in (poster, *others):
        assert reader.lines == log, id
    return [poster, *others]


async def follow_all(port: int) -> list[CutReader]:
    limit = asyncio.Semaphore(AT_ONCE)
    sessions = [follow_with_three(port, number, limit) for number in range(SESSIONS)]
    return [reader for readers in await asyncio.gather(*sessions) for reader in readers]


@pytest.mark.timeout(240)  # seconds, on a machine that is busy with something else; 4 on an idle one
def test_every_reader_of_a_thousand_sessions_has_the_whole_log_however_it_is_cut(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        readers = asyncio.run(follow_all(httpx.URL(server.url).port or 0))
        assert server.client.get("/sessions?state=completed").json()["total"] == SESSIONS
        assert server.end() == 0
        assert len(server.said) == 1  # nothing went wrong in it
    assert len(readers) == 3 * SESSIONS
    assert sum(reader.cuts for reader in readers) > 2 * SESSIONS
    assert sum(reader.cuts > 10 for reader in readers) > 50
