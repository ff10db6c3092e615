"""The Python client of a broker, over HTTP or in memory."""
