"""robot:=real against a process that behaves as the robot does on its network."""
