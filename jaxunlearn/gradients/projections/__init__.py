"""Gradients made small: seeded random and Kronecker-factored projections."""
