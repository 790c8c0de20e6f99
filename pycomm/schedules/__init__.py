"""Schedules as objects: written by algorithms, verified, shown, counted; no C, no launcher."""
