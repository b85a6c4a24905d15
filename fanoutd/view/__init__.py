"""What people see: pure functions from the daemon's objects to lines and tables."""
