"""What a model still knows, what it lost, and how it stands beside retrained ones."""
