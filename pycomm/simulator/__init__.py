"""What schedules take on described machines."""
