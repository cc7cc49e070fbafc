"""The methods of :func:`~jaxunlearn.influence.scores`, one idea a file."""
