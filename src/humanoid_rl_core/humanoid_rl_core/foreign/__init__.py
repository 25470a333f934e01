"""Policies that other stacks exported, made into policies of this project: read, asked about, composed, checked."""
