"""The application of measurements of short sessions: nothing but defaults."""

from __future__ import annotations

from enclave_broker import Broker

broker = Broker()
