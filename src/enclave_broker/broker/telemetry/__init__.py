"""What a broker tells of itself to who operates it: the audit line, counters and spans. Sees facts, changes nothing."""
