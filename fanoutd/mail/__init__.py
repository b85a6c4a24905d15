"""Mail from the daemon to whoever runs it: what happened becomes an event, events become mails, mails go out."""
