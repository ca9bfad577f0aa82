"""Networks that recognise and speak."""
