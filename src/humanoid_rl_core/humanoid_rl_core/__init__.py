"""Robot model, policy graph and contract, and the wire: what simulator and robot share."""
