"""`fraudstream demo`: the whole system on one machine, shown while it runs and accounted for at the end."""
