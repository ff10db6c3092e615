"""Sessions: their executions, states, admission and log."""
