"""All that is measured of one model on an evaluation's sets, and its scores."""
