"""Training, evaluation and export of policies; runs without ROS."""
