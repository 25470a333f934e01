"""Hosts: what turns joint commands into the robot's low-level protocol, and its state into ROS topics."""
