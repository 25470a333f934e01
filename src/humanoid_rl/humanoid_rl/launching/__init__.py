"""Launch files: running them, and what they are made of: hosts, viewers, nodes, refusals, security."""
