"""What a judge is asked, and what its answers amount to: contests, turns and pairs."""
