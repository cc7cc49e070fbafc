"""Methods that give what training without the forgotten examples would have given."""
