"""The node pack: one explicit list of nodes."""
