"""Bringup: launch files, configuration, robot description, command line and views."""
