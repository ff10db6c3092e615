"""The part "http" of `make bench`: load, memory and streams, each in processes of its own."""

from __future__ import annotations

import http_load
import http_memory
import http_streams
from figures import Figure


async def measure(*, quick: bool) -> list[Figure]:
    return [figure for part in (http_load, http_memory, http_streams) for figure in await part.measure(quick=quick)]
