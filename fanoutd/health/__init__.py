"""What can be wrong with a daemon, when it is worth a mail, and in which words. Pure: no clock, store or file."""
