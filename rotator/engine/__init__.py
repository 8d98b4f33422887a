"""Will: waits, retries, orders and cancels, on the ports of core only."""
