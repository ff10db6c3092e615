"""Tools: what a handler takes and gives, how names and patterns are compared, where handlers run."""
