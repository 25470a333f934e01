"""A virtual robot behind the real one's wire protocol; no ROS in here."""
