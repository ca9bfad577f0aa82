"""Launches the ranks of one machine: start plan, supervisor, agent, rendezvous store, exit cause."""
