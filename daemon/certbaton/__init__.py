"""certbaton: obtains, renews and hands over TLS certificates on cloud load balancers."""
