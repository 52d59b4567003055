"""The process boundary: steps, hosts, the pool, limits and confinement."""
