"""The main of a worker process: frames in, steps of an engine, frames out. Holds no policy, no secret, no log.

Three threads. The reader (the main thread) blocks in recv and runs each step inline for its first slice; a step that
doesn't finish goes to the burner, which polls all such steps in turn, checks budgets and ends what is to be killed
between slices; the ticker moves the engine's epoch while anything runs, and sleeps otherwise.
Started by runtime/process.py as `python -m enclave_broker.runtime.worker CHANNEL IMAGE PARENT WEAK INSTANCES HASH`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from time import thread_time_ns

import msgspec

from enclave_broker.core.javascript import Engine, Instance, Step
from enclave_broker.runtime.frames import CLOSED, HEADER, PROTOCOL, STEP, Down, Hello, Up, pack
from enclave_broker.runtime.hardening import WallsMissingError, enter
from enclave_broker.types.messages import StartMessage, Verdict, encode_inputs, encode_start, start_budget

__all__ = ["Worker", "main"]

TICK = 0.002
"""Seconds of an epoch. An inline step holds the reader for at most two."""
PARK_AFTER = 25
"""Ticks without a step after which the ticker sleeps until the next one."""
RECEIVE_BYTES = 1 << 18
BURNER_NICENESS = 5
"""Long steps yield to short ones on a busy machine."""


class _Live:
    """One run. The reader owns it while `burning` is false, the burner while it is true."""

    __slots__ = ("budget_ns", "burning", "id", "instance", "killed", "queue", "step_ns", "total_ns")

    def __init__(self, id: int, instance: Instance, budget_ns: int) -> None:
        self.id = id
        self.instance = instance
        self.budget_ns = budget_ns
        self.total_ns = 0
        self.step_ns = 0
        self.burning = False
        self.killed = False
        self.queue: deque[bytes] = deque()


def _closed(live: _Live) -> bytes:
    """The answer to a KILL in the middle of a step."""
    return pack(Up.CLOSED, live.id, CLOSED.pack(min(live.step_ns // 1000, 0xFFFFFFFF)))


class Worker:
    """Runs of one process over one channel, until the channel ends."""

    def __init__(self, channel: socket.socket, engine: Engine) -> None:
        self._channel = channel
        self._engine = engine
        self._live: dict[int, _Live] = {}
        self._send_lock = threading.Lock()
        self._burn_lock = threading.Lock()
        self._burns: SimpleQueue[_Live] = SimpleQueue()
        self._burning = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._parked = False
        self._steps = 0

    # -- the reader ------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Read frames until the broker closes the channel."""
        buffer = bytearray(RECEIVE_BYTES)
        have = 0
        while True:
            if have == len(buffer):
                buffer.extend(bytes(max(len(buffer), self._wanted(buffer) - have)))
            received = self._channel.recv_into(memoryview(buffer)[have:])
            if not received:
                return
            have += received
            out: list[bytes] = []
            used = self._frames(memoryview(buffer)[:have], out)
            if used:
                buffer[: have - used] = buffer[used:have]
                have -= used
                if not have and len(buffer) > RECEIVE_BYTES:
                    buffer = bytearray(RECEIVE_BYTES)
            if out:
                self._send(b"".join(out))

    def _wanted(self, buffer: bytearray) -> int:
        return HEADER.size + HEADER.unpack_from(buffer)[0]

    def _frames(self, data: memoryview, out: list[bytes]) -> int:
        offset, end = 0, len(data)
        while end - offset >= HEADER.size:
            length, kind, run = HEADER.unpack_from(data, offset)
            after = offset + HEADER.size + length
            if after > end:
                break
            self._frame(kind, run, bytes(data[offset + HEADER.size : after]), out)
            offset = after
        return offset

    def _frame(self, kind: int, run: int, body: bytes, out: list[bytes]) -> None:
        if kind == Down.START:
            memory, cpu_ms = start_budget(body)
            live = self._live[run] = _Live(run, self._engine.instantiate(memory), cpu_ms * 1_000_000)
            self._inline(live, body, out, start=True)
        elif kind == Down.DELIVER:
            live = self._live.get(run)
            if live is not None and not self._queued(live, body):
                self._inline(live, body, out)
        elif kind == Down.KILL:
            self._kill(run, out)
        elif kind == Down.PING:
            out.append(pack(Up.PONG, 0, body))

    def _queued(self, live: _Live, body: bytes) -> bool:
        """Whether the burner has the run and takes this delivery after its present step."""
        if not live.burning:
            return False
        with self._burn_lock:
            if live.burning:
                live.queue.append(body)
            return live.burning

    def _kill(self, run: int, out: list[bytes]) -> None:
        with self._burn_lock:
            live = self._live.pop(run, None)
            if live is not None:
                live.killed = True
                if live.burning:
                    return  # the burner answers
        if live is not None:
            live.instance.close()
        out.append(pack(Up.CLOSED, run, CLOSED.pack(0)))

    def _inline(self, live: _Live, body: bytes, out: list[bytes], *, start: bool = False) -> None:
        self._awake()
        instance = live.instance
        before = thread_time_ns()
        step = instance.start(body) if start else instance.deliver(body)
        live.step_ns = thread_time_ns() - before
        live.total_ns += live.step_ns
        if step is None:
            live.burning = True
            self._burns.put(live)
        else:
            out.append(self._answer(live, step))

    def _answer(self, live: _Live, step: Step) -> bytes:
        """The STEP frame. A run over its budget ends here if it didn't end in the burner."""
        verdict, ended = step.verdict, step.ended
        if not ended and live.total_ns > live.budget_ns:
            verdict, ended = Verdict.CPU_LIMIT, True
        if ended:
            self._live.pop(live.id, None)
            live.instance.close()
        head = STEP.pack(min(live.step_ns // 1000, 0xFFFFFFFF), ended, verdict)
        return HEADER.pack(len(head) + len(step.effects), Up.STEP, live.id) + head + step.effects

    def _send(self, data: bytes) -> None:
        with self._send_lock:
            self._channel.sendall(data)

    # -- the burner ------------------------------------------------------------------------------------------------

    def burn(self) -> None:
        """Run long steps, one slice each in turn, for ever."""
        ring: deque[_Live] = deque()
        while True:
            self._burning = bool(ring)
            try:
                while True:
                    ring.append(self._burns.get(block=not ring))
                    self._burning = True
            except Empty:
                pass
            live = ring.popleft()
            if self._slice(live):
                ring.append(live)

    def _slice(self, live: _Live) -> bool:
        """One slice; whether more are needed."""
        if live.killed:
            live.instance.stop(Verdict.NONE)
            self._send(_closed(live))
            return False
        before = thread_time_ns()
        step = live.instance.resume()
        used = thread_time_ns() - before
        live.step_ns += used
        live.total_ns += used
        if step is None:
            if live.total_ns <= live.budget_ns:
                return True
            step = live.instance.stop(Verdict.CPU_LIMIT)
        return self._finished(live, step)

    def _finished(self, live: _Live, step: Step | None) -> bool:
        """Answer a long step, then begin the next delivery that waited for it; whether that one is long, too."""
        while step is not None:
            # Answering and forgetting are one for the reader: it never says CLOSED before a STEP of the same run.
            with self._burn_lock:
                if live.killed:
                    live.instance.close()
                    self._send(_closed(live))
                    return False
                self._send(self._answer(live, step))
                live.burning = live.id in self._live and bool(live.queue)
                if not live.burning:
                    return False
                body = live.queue.popleft()
            before = thread_time_ns()
            step = live.instance.deliver(body)
            live.step_ns = thread_time_ns() - before
            live.total_ns += live.step_ns
        return True

    # -- the ticker ------------------------------------------------------------------------------------------------

    def _awake(self) -> None:
        self._steps += 1
        if self._parked:
            self._parked = False
            self._wake.put(None)

    def tick(self) -> None:
        """Move the epoch while steps run, for ever."""
        seen, idle = -1, 0
        while True:
            time.sleep(TICK)
            self._engine.tick()
            if self._burning or seen != self._steps:
                seen, idle = self._steps, 0
                continue
            idle += 1
            if idle < PARK_AFTER:
                continue
            self._parked = True
            if seen == self._steps and not self._burning:
                self._wake.get()
            self._parked, idle = False, 0

    def start_threads(self) -> None:
        """Start burner and ticker; none can be started once the filter stands."""

        def burner() -> None:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BURNER_NICENESS)
            ready.release()
            self.burn()

        ready = threading.Semaphore(0)
        threading.Thread(target=burner, name="burner", daemon=True).start()
        threading.Thread(target=self.tick, name="ticker", daemon=True).start()
        ready.acquire()


def warm_up(engine: Engine) -> None:
    """Two runs at once, a call and its answer, so that everything lazy in Python, ctypes and the engine is there."""
    message = StartMessage(
        code="return await callTool('w', {})",
        seed=1,
        now=0.0,
        max_memory_bytes=16 << 20,
        max_stdout_bytes=1024,
        max_args_bytes=1024,
        max_result_bytes=1024,
        max_calls=1,
        max_timers=1,
        cpu_ms=1000,
    )
    body = encode_start(message)
    instances = [engine.instantiate(message.max_memory_bytes) for _ in range(2)]
    for instance in instances:
        step = instance.start(body)
        while step is None:
            step = instance.resume()
    for instance in instances:
        instance.close()
    encode_inputs([])


def main(argv: list[str]) -> None:
    """Build the engine, enter the sandbox, say hello, serve; the process ends with the channel."""
    channel_fd, image_fd, parent, weak, instances = (int(word) for word in argv[1:6])
    sys.setswitchinterval(0.001)
    channel = socket.socket(fileno=channel_fd)
    engine = Engine(
        f"/proc/self/fd/{image_fd}" if sys.platform == "linux" else f"/dev/fd/{image_fd}", max_instances=instances
    )
    warm_up(engine)
    worker = Worker(channel, engine)
    walls_stand = True
    try:
        report = enter(
            channel=channel_fd, image=image_fd, parent=parent, start_threads=worker.start_threads, weak=bool(weak)
        )
    except WallsMissingError as error:  # the broker says why it doesn't start
        report, walls_stand = error.report, False
    walls = msgspec.Raw(msgspec.json.encode(report))
    hello = Hello(protocol=PROTOCOL, pid=os.getpid(), engines={"javascript": argv[6]}, threads=3, walls=walls)
    channel.sendall(pack(Up.HELLO, 0, msgspec.json.encode(hello)))
    if not walls_stand:
        os._exit(1)
    status = 1
    try:
        worker.serve()
        status = 0
    except OSError:
        status = 0  # the broker is gone
    except BaseException:  # noqa: BLE001 a process's boundary: its last words go to the broker's log
        sys.excepthook(*sys.exc_info())  # pyright: ignore[reportArgumentType] there is an exception here
    # Finalisation writes to pages that are sealed by now; there is nothing left to clean up.
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv)
