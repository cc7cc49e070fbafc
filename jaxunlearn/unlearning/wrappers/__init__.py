"""Methods that act at inference: a task in, a task out, the knowledge still within.

They suppress what a model says and remove nothing: the parameters stay as they were,
and whoever has them has the forgotten too.
"""
