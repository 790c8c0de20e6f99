"""Measuring a machine, and the tables of what was learnt on it: behind `pycomm tune` and `Comm.confirm`."""
