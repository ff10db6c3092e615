"""What `make demo` shows: a report, hostile scripts beside honest ones, and the report over HTTP.

Ends with 1 if anything comes out otherwise than promised.
"""

from __future__ import annotations

import sys

from hostile import show_hostile
from report import show_report
from screen import heading
from wire import show_wire

wrong = [*show_report(), *show_hostile(), *show_wire()]
heading("As promised" if not wrong else "NOT as promised")
print(
    "\n".join(wrong)
    or "The report is there, the hostile scripts were stopped, the honest ones went on, and a cut stream lost nothing."
)
sys.exit(1 if wrong else 0)
