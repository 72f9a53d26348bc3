"""The servers that development needs: one file a service, `core` for what they share."""
