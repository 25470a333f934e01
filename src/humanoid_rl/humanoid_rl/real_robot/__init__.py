"""`robot:=real`: its network, its preflight, and how a launch waits for both."""
