"""Tool calls: their states, and the one chain of policy that each passes before its handler."""
