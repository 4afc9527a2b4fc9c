"""What happens next with a run. Pure: no cluster, no clock, nothing that waits."""
