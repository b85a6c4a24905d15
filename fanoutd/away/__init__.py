"""While the daemon cannot be reached: what is to be sent is kept where it finds it, and whoever runs it is told."""
