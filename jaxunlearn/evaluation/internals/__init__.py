"""What is left inside: representations, probes, depth, parameters, concepts."""
