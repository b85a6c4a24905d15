"""The daemon seen from outside, by cron or Nagios: what is seen, what it amounts to, what is done about it."""
