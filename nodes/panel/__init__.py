"""The server side of the training panel: sessions, the messages about them, and HTTP routes."""
