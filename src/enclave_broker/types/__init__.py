"""What crosses the wire, sans-I/O: ids, limits, errors, events, messages, results. Imports nothing of the rest."""
