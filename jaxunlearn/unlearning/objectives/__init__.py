"""Methods that descend a loss: forget terms and retain terms, composed."""
