"""Looks at a job and its hosts: who reaches whom, how fast, by which limits; and says what to do (docs/doctor.md)."""
