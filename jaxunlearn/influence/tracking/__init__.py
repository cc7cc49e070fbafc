"""Influence and losses as time series of a training run."""
