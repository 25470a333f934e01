"""What a policy does in one simulator and not in another: measured in each, compared in pairs."""
