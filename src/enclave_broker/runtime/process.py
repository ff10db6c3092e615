"""One worker process: spawn, handshake, check from outside, frames, watchdog, kill and reap.

Owns the process, its channel and what runs in it (runtime/run.py); runtime/pool.py decides what is placed where. What
the process sends is untrusted: a frame that does not fit ends it, and its runs hear `lost`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import msgspec

from enclave_broker.runtime.frames import PROTOCOL, Down, FrameDecoder, FrameError, Hello, Up, pack
from enclave_broker.runtime.hardening import Report, missing
from enclave_broker.runtime.run import ProcessRun
from enclave_broker.runtime.runtime import Key
from enclave_broker.types.errors import ConfigurationError, RuntimeLostError

__all__ = ["WorkerProcess"]

log = logging.getLogger("enclave_broker.runtime")

HELLO_SECONDS = 15.0
PING_SECONDS = 1.0
UNANSWERED_PINGS = 3
"""A worker that owes an answer and leaves this many pings unanswered is killed."""
REAP_SECONDS = 0.002
STDERR_BYTES = 8192
"""Of what one worker writes to stderr, this much reaches the log."""


class WorkerProcess(asyncio.Protocol):
    """One child process. Made by `spawn`; `on_end` is called once, when it is gone.

    It gets the runs that may start in another process, since nothing they did was seen.
    """

    def __init__(
        self,
        on_free: Callable[[WorkerProcess], None],
        on_end: Callable[[WorkerProcess, list[ProcessRun]], None],
    ) -> None:
        self.key: Key | None = None
        self.busy = 0
        """Frames that it has still to answer."""
        self.inside_bytes = 0
        """What its runs that are inside a step may still grow to."""
        self.idle_since = 0.0
        self.hello: Hello | None = None
        self._on_free = on_free
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[Hello] = self._loop.create_future()
        self._runs: dict[int, ProcessRun] = {}
        self._decoder = FrameDecoder()
        self._dirty: list[ProcessRun] = []
        self._out: list[bytes] = []
        self._scheduled = False
        self._next_id = 0
        self._pings = 0
        self._heard = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr_left = STDERR_BYTES
        self._reason = "the worker process ended"
        self.ended = False

    # -- life ------------------------------------------------------------------------------------------------------

    async def spawn(self, image: int, engine_hash: str, *, weak: bool, capacity: int) -> None:
        """Start the process and take it only when every required wall is seen to stand.

        Raises ConfigurationError for missing walls or a foreign engine, RuntimeLostError when it doesn't come up.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            channel = theirs.fileno()
            words = (channel, image, os.getpid(), int(weak), capacity, engine_hash)
            # vfork and exec take 1 to 2 ms; in a thread, the death of that thread would end the worker.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-I", "-X", "faulthandler", "-m", "enclave_broker.runtime.worker", *map(str, words)],
                env={},
                cwd="/",
                pass_fds=(channel, image),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        ours.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=ours)
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        self._loop.add_reader(self._process.stderr.fileno(), self._read_stderr)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello = await self._greeted
            self._check(hello, engine_hash, weak=weak)
            self.hello = hello
        except BaseException as error:
            self.kill("it did not come up")
            if isinstance(error, TimeoutError):
                raise RuntimeLostError(f"a worker said nothing for {HELLO_SECONDS:.0f} s") from None
            raise

    def _check(self, hello: Hello, engine_hash: str, *, weak: bool) -> None:
        assert self._process is not None
        if hello.protocol != PROTOCOL or hello.engines.get("javascript") != engine_hash:
            raise ConfigurationError("the worker is of another version than the broker: install the package anew")
        if hello.pid != self._process.pid:
            raise ConfigurationError("the worker gave another process id than its own")
        if weak:
            return
        walls = msgspec.json.decode(hello.walls, type=Report)
        lines = [wall.line for wall in walls.walls if wall.required and not wall.ok]
        if not lines:  # a worker that lacks a wall by its own word has ended
            lines = [f"missing: {name}, not seen from outside" for name in missing(self._process.pid, hello.threads)]
        if lines:
            raise ConfigurationError(
                f"the sandbox can't be built on this machine: {'; '.join(lines)}. "
                "`enclave-broker doctor` shows each wall; Broker(weak_sandbox=True) or --weak-sandbox runs without them"
            )

    def kill(self, reason: str) -> None:
        """SIGKILL; every run that has begun hears `lost`. Idempotent."""
        if self.ended:
            return
        self.ended = True
        self._reason = reason
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._process is not None:
            self._process.kill()
        if self._transport is not None:
            self._transport.abort()
        if not self._greeted.done():
            self._greeted.set_exception(RuntimeLostError(f"a worker ended before it was ready: {reason}"))
            self._greeted.exception()
        runs, self._runs = list(self._runs.values()), {}
        displaced = [run for run in runs if run.displaced()]
        for run in runs:
            if run not in displaced:
                run.lost(reason)
        self._on_end(self, displaced)

    def abandon(self) -> None:
        """Kill and reap without an event loop."""
        self.ended = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()

    async def reap(self) -> None:
        """Wait for the killed process and close what is left of it."""
        process = self._process
        if process is None:
            return
        # It is dead within a moment; a thread that waits for it could not be had at the interpreter's exit.
        while process.poll() is None:  # noqa: ASYNC110 nothing tells of a child's end but asking
            await asyncio.sleep(REAP_SECONDS)
        if process.stderr is not None:
            self._read_stderr()
            self._loop.remove_reader(process.stderr.fileno())
            process.stderr.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # -- runs ------------------------------------------------------------------------------------------------------

    @property
    def load(self) -> int:
        return len(self._runs)

    @property
    def is_writing(self) -> bool:
        """Whether something will be written to it in this turn of the loop anyway."""
        return self._scheduled

    def place(self, run: ProcessRun) -> None:
        self._next_id = id = self._next_id % 0xFFFFFFFF + 1
        self._runs[id] = run
        self.busy += 1
        self._write(pack(Down.START, id, run.body))
        run.placed(self, id)
        self._watch()

    def kill_run(self, id: int) -> None:
        """The run stays in the table until the worker has answered, so that its late frames are known as such."""
        if id in self._runs:
            self._write(pack(Down.KILL, id))
            self._watch()

    def want_flush(self, run: ProcessRun) -> None:
        self._dirty.append(run)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def _write(self, frame: bytes) -> None:
        self._out.append(frame)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """One write a loop turn: starts, kills and pings in their order, then what runs have to deliver."""
        self._scheduled = False
        if not self._out and not self._dirty:
            return
        out, self._out = self._out, []
        dirty, self._dirty = self._dirty, []
        for run in dirty:
            if frame := run.frame():
                self.busy += 1
                out.append(frame)
        if self._transport is not None and not self.ended:
            self._transport.write(b"".join(out))
            if self._watchdog is None:
                self._watch()

    # -- frames ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for kind, id, body in self._decoder.feed(data):
                if self.ended:
                    return
                self._frame(kind, id, body)
        except (FrameError, msgspec.DecodeError, ValueError, RecursionError) as error:
            log.error("worker %d broke the protocol and is killed: %s", self.pid, error)
            self.kill("the worker process broke the protocol")

    def _frame(self, kind: int, id: int, body: bytes) -> None:
        if kind == Up.STEP:
            run = self._runs.get(id)
            if run is None:
                raise FrameError(f"a step of a run {id} that isn't here")
            self.busy -= 1
            if run.stepped(body):
                self._forget(id)
            elif not self.ended:
                self._on_free(self)
        elif kind == Up.CLOSED:
            run = self._runs.get(id)
            if run is not None:
                if not run.cancelled:
                    raise FrameError(f"run {id} closed by itself")
                run.closed(body)
                self._forget(id)
        elif kind == Up.HELLO and not self._greeted.done():
            self._greeted.set_result(msgspec.json.decode(body, type=Hello))
        elif kind != Up.PONG:
            raise FrameError(f"a frame of type {kind}")

    def _forget(self, id: int) -> None:
        if (run := self._runs.pop(id, None)) is not None:
            self.busy -= run.owed
            self.inside_bytes -= run.max_bytes if run.owed else 0
        if not self._runs:
            self.idle_since = self._loop.time()
        if not self.ended:
            self._on_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.kill(self._reason)

    # -- watchdog and stderr ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """A timer runs while the worker owes an answer; an idle worker costs nothing."""
        if self._watchdog is None and not self.ended:
            self._pings, self._heard = 0, True
            self._watchdog = self._loop.call_later(PING_SECONDS, self._check_pulse)

    def _check_pulse(self) -> None:
        self._watchdog = None
        if self.ended or not any(run.owed or run.cancelled for run in self._runs.values()):
            return
        self._pings = 0 if self._heard else self._pings + 1
        self._heard = False
        if self._pings > UNANSWERED_PINGS:
            log.error("worker %d doesn't answer and is killed", self.pid)
            self.kill("the worker process did not answer")
            return
        self._write(pack(Down.PING, 0))
        self._watchdog = self._loop.call_later(PING_SECONDS, self._check_pulse)

    def _read_stderr(self) -> None:
        process = self._process
        if process is None or process.stderr is None or process.stderr.closed:
            return
        try:
            data = os.read(process.stderr.fileno(), STDERR_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(process.stderr.fileno())
            return
        shown, self._stderr_left = data[: self._stderr_left], max(0, self._stderr_left - len(data))
        if shown:
            # What a worker prints is untrusted: repr keeps control characters out of the log.
            log.warning("worker %d says %s", process.pid, ascii(shown.decode("utf-8", "replace")))
