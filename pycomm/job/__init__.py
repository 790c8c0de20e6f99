"""How the ranks of a job are started, find each other, and hear of losses; no communicator."""
