"""pycomm: collective communication for machine learning and supercomputing."""
