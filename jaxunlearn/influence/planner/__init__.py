"""What influence scores will cost in memory and passes, before they are computed."""
