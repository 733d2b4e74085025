"""The process in which one model is read, checked and loaded. Nothing else imports this, nor what it imports."""
