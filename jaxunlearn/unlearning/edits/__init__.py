"""Methods that change parameters directly: parameters in, parameters out."""
