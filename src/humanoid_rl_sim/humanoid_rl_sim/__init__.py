"""Batched simulators, tasks and learning, and their ROS nodes."""
