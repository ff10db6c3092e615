"""What becomes of a run whose client has gone, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enclave_broker import SessionManager
from tests.http.live import Live, memory_broker, serving

CODE = "console.log('begun'); await sleep(30_000)"


@pytest.fixture
def impatient() -> Iterator[Live]:
    """A server that gives a run without a reader a tenth of a second."""
    with serving(memory_broker(sessions=SessionManager(grace=0.1))) as live:
        yield live


def left(live: Live, *, detach: bool = False) -> str:
    """The id of a session whose only reader has gone in mid-stream."""
    with live.streaming(CODE, detach=detach) as stream:
        return str(stream.next("stdout")["sessionId"])


def test_a_run_that_its_client_has_left_is_cancelled_after_the_grace(impatient: Live) -> None:
    id = left(impatient)
    impatient.until(lambda: impatient.session(id).state == "cancelled")
    last = impatient.client.get(f"/sessions/{id}/stream").text.splitlines()[-1]
    assert '"SESSION_CANCELLED"' in last


def test_a_detached_run_goes_on_without_its_client(impatient: Live) -> None:
    id, other = left(impatient, detach=True), left(impatient)
    impatient.until(lambda: impatient.session(other).state == "cancelled")
    assert impatient.client.get(f"/sessions/{id}").json()["state"] == "running"
    assert impatient.client.delete(f"/sessions/{id}").json()["success"]
