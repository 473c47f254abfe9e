"""What the daemon shows by HTTP. Nothing here changes anything."""
