"""KFAC and EK-FAC: factors, eigenbases, moments, scores through their inverse."""
