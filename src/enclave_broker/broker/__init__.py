"""The host side: the broker, its sessions, calls, tools and stores."""
