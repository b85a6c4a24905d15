"""While the daemon cannot be reached: what is to be sent is kept where he finds it, and whoever runs him is told."""
