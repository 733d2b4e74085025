"""The process in which one model is loaded and answers. Nothing else imports this, nor what it imports."""
