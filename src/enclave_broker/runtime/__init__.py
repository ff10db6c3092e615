"""Where engines run: worker processes, their pool, and the engine in memory for tests."""
