"""The parts of a recipe that only a cluster reads: pods, life cycle, Kubernetes' own types."""
