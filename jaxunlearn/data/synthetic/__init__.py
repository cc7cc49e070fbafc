"""A made-up world of people and facts, its text decided by a seed."""
