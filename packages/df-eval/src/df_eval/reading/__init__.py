"""What networks and exact readers see in frames."""
